"""Checks of the checks: each is made weaker in turn, and a stored fault then gets past it.

Every theorem refutes faults of the decoder (`test_mutants.py`), each on a case of its own. Were its
check to look at less, one of these would no longer be noticed, and that test would fail: this is
shown here for the ways of looking at less that each theorem lists. Likewise for its control.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from mutants import MUTANTS, refutations, refuted
from planted import Fault, planted
from strategies import cases

from minikv import random_model, tiny_config
from minikv.verify import CLAIMS, THEOREMS, random_case
from minikv.verify.bits import differ
from minikv.verify.theorem import Theorem, Weaker
from minikv.verify.theorems.t04_any_eviction import Unplaced
from minikv.verify.theorems.t08_causality import Unmasked

WEAKENED = [(theorem, weaker) for theorem in THEOREMS.values() for weaker in theorem.weaker]
SEEDS = {(name, theorem): seed for name, theorem, seed in refutations()}


def weakening(theorem: Theorem, weaker: Weaker) -> Fault:
    """The change of the theorem's own file, or of the one that is named."""
    if weaker.file:
        return Fault(f"verify/{weaker.file}", weaker.old, weaker.new)
    module = theorem.check.__module__.rpartition(".")[2]
    return Fault(f"verify/theorems/{module}.py", weaker.old, weaker.new, until="THEOREM = ")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("theorem", "weaker"),
    WEAKENED,
    ids=[f"{theorem.id}-{weaker.name}" for theorem, weaker in WEAKENED],
)
def test_a_weaker_check_is_noticed(theorem, weaker):
    fault = MUTANTS[weaker.noticed]
    seed = weaker.seed
    if seed is None:
        seed = SEEDS[weaker.noticed, theorem.id]
    with planted(fault):
        assert refuted(theorem.id, seed)
    with planted(fault, weakening(theorem, weaker)):
        assert not refuted(theorem.id, seed)


@pytest.mark.parametrize("theorem", THEOREMS)
def test_each_check_has_three_faults_and_three_weakenings(theorem):
    assert len({name for name, by, _ in refutations() if by == theorem}) >= 3
    assert len({weaker.name for weaker in THEOREMS[theorem].weaker}) >= 3


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_control_finds_nothing_where_its_hypothesis_makes_no_difference(claim):
    """Matrices of zeros: nothing reads, adds or remembers anything; one layer: nothing bypasses."""
    cases = [random_case(seed, scale=0.0) for seed in range(40)]
    cases = [case for case in cases if len(case.ids) > 1 and CLAIMS[claim].applies(case)]
    if claim == "D":
        cases = [case for case in cases if case.config.num_hidden_layers == 1]
    if claim == "T11":  # a window of one token reaches nothing but the row itself
        cases = [case for case in cases if case.config.sliding_window > 1]
    assert cases
    assert [CLAIMS[claim].control(case) for case in cases[:5]] == [""] * len(cases[:5])


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_control_of_one_token_is_answered(claim):
    case = next(case for case in map(random_case, range(99)) if len(case.ids) == 1)
    assert isinstance(CLAIMS[claim].control(case), str)


@given(case=cases(scales=(1.0,)))
@settings(max_examples=15)
def test_what_is_unplaced_has_lost_nothing_but_its_positions(case):
    """The control of T4: with them, what it recomputes is the full cache's."""
    placed = Unplaced(case.model.new_cache("full"), placed=True)
    assert not differ(case.decoded(placed), case.logits)


@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_unmasked_has_lost_nothing_but_its_mask(layers):
    """The control of T8: of one token there is nothing to mask."""
    model = random_model(tiny_config(num_hidden_layers=layers), 0, "exact")
    masked, unmasked = model.new_cache("full"), Unmasked(model.new_cache("full"))
    assert not differ(*(model.forward([[5]], [memory], "all") for memory in (masked, unmasked)))
    ids = [[5, 6, 7]]
    masked, unmasked = model.new_cache("full"), Unmasked(model.new_cache("full"))
    assert differ(*(model.forward(ids, [memory], "all") for memory in (masked, unmasked)))

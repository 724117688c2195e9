"""W: every theorem on SmolLM2-135M-Instruct and Gemma 3 270M, at every layer, across texts."""

from __future__ import annotations

import pytest

from minikv.verify import THEOREMS
from minikv.verify.texts import TEXTS, long_cases, real_cases
from minikv.verify.theorems.t02_markov import last_position_patch

pytestmark = pytest.mark.weights
MODEL, GEMMA = "smollm2-135m-instruct", "gemma-3-270m"
UNWINDOWED = [id for id, theorem in THEOREMS.items() if not theorem.windowed]


@pytest.fixture(scope="module")
def cases():
    return real_cases(MODEL)


@pytest.mark.parametrize("theorem", UNWINDOWED)
def test_holds_on_real_weights(theorem, cases):
    # The two texts of a case are of different kinds; each theorem takes one of the four pairs,
    # T2, which is about pairs, takes them all.
    number = int(theorem[1:])
    for case in cases if theorem == "T2" else [cases[number % len(TEXTS)]]:
        THEOREMS[theorem].check(case)


@pytest.mark.parametrize("theorem", UNWINDOWED)
def test_control_makes_a_difference_on_real_weights(theorem, cases):
    assert THEOREMS[theorem].control(cases[0])


def test_patching_the_last_position_alone_is_not_enough_at_any_layer_but_the_last(cases):
    case = cases[0]
    losses = [last_position_patch(case, layer) for layer in range(len(case.model.layers) - 1)]
    assert min(losses) > 1e-6  # nats; at the last layer the last position is all that is read


@pytest.fixture(scope="module")
def gemma_cases(gemma):
    return {False: real_cases(GEMMA), True: long_cases(GEMMA)}


@pytest.mark.parametrize("theorem", list(THEOREMS))
def test_holds_on_gemma(theorem, gemma_cases):
    case = gemma_cases[THEOREMS[theorem].windowed][0]
    assert THEOREMS[theorem].applies(case)
    THEOREMS[theorem].check(case)
    assert THEOREMS[theorem].control(case)


def test_gemma_is_calm(gemma_cases, monkeypatch, request):
    """So no check can fire, for any text: ``Finite.no_check_fires``."""
    monkeypatch.syspath_prepend(request.path.parent / "extracted")
    import decoder_calm
    import decoder_cases

    case = gemma_cases[False][0]
    model = case.model
    assert decoder_calm.calm(decoder_cases.Case(GEMMA, model.config, {}, case.ids, model))

"""Policies by name: what an addition takes, and that it is tested by being registered."""

from __future__ import annotations

import doctest
import inspect
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits
from feeding import ALL, EXACT, TEXT, feed, registered

import minikv
from minikv import caches
from minikv.caches import (
    POLICIES,
    Evicting,
    Scheduled,
    evicting,
    examples,
    make_cache,
    register,
)
from minikv.errors import CacheError

HOWTO = Path(__file__).parents[2] / "docs" / "howto.md"


@pytest.fixture(autouse=True)
def registry():
    """What a test registers is gone after it."""
    with registered():
        yield


def knorm() -> type[Evicting]:
    @register
    class Knorm(Evicting):
        policy = "knorm"
        per_head = True

        def priority(self, rows):
            return -np.linalg.norm(rows.keys, axis=-1)

    return Knorm


def test_a_policy_of_ones_own_is_made_by_name_forked_and_saved():
    policy = knorm()
    cache = EXACT.new_cache("knorm", budget=4)
    assert type(cache) is policy
    feed(EXACT, cache, TEXT, 9, 1)
    assert (cache.seen, cache.stored) == (24, 4)
    loaded = make_cache("knorm", EXACT.weights, budget=4)
    loaded.load_state(*cache.state())
    assert_same_bits(feed(EXACT, loaded, TEXT[:3]), feed(EXACT, cache.fork(), TEXT[:3]))


def test_what_is_registered_is_among_what_tests_run():
    policy = knorm()
    assert evicting()["knorm"] is policy
    assert [str(example) for example in examples(policy)] == ["knorm(budget=5)"]
    assert {example.policy for example in examples(Evicting)} == set(evicting().values())
    assert {example.policy for example in examples()} == {*POLICIES.values(), Scheduled}


def test_a_policy_with_parameters_writes_them_once():
    @register
    @dataclass(eq=False, repr=False)
    class Every(Evicting):
        policy = "every"
        step: int = 2

        def priority(self, rows):
            return rows.positions % self.step == 0

    cache = EXACT.new_cache("every", budget=4, step=3)
    assert cache.parameters == {"budget": 4, "step": 3}
    feed(EXACT, cache, TEXT[:12])
    assert cache.rows[0].positions[:, 0].tolist() == [0, 3, 6, 9]
    with pytest.raises(CacheError, match=r"'every' has no parameter 'stride', .*: budget, step$"):
        EXACT.new_cache("every", budget=4, stride=3)
    with pytest.raises(CacheError, match=r'parameters .*"step": 3.*expected .*"step": 2'):
        EXACT.new_cache("every", budget=4).load_state(*cache.state())


@pytest.mark.parametrize("example", ALL, ids=str)
def test_parameters_are_the_fields_of_a_dataclass_in_order_and_json_holds_them(example):
    policy = example.policy
    assert "__dataclass_fields__" in vars(policy)
    cache = example.new(EXACT.weights)
    taken = [name for name in inspect.signature(policy).parameters if name != "weights"]
    assert fields(policy)[0].name == "weights"
    if policy is not Scheduled:  # whose schedule no file can hold
        assert list(cache.parameters) == taken
    assert json.loads(json.dumps(cache.parameters)) == cache.parameters


def test_a_policy_may_be_registered_anew():
    """As a notebook does when its cell is run again."""
    first, second = knorm(), knorm()
    assert first is not second
    assert caches.POLICIES["knorm"] is second


def test_what_cannot_be_registered_is_refused():
    class Nameless(Evicting):
        pass

    class Thief(Evicting):
        policy = "h2o"

    for given, message in (
        (dict, "is no cache policy, expected a subclass of Cache"),
        (EXACT.new_cache(), "is no cache policy"),
        (Nameless, "Nameless has no name, expected policy = '...' in its body"),
        (Thief, "H2O is the policy 'h2o' already, choose another name"),
    ):
        with pytest.raises(CacheError, match=message):
            register(given)
    assert caches.POLICIES["h2o"] is caches.H2O


@pytest.mark.parametrize("policy", caches.POLICIES.values(), ids=caches.POLICIES)
def test_every_policy_has_its_file_and_says_where_it_is_from(policy):
    assert getattr(caches, policy.__name__) is policy
    assert inspect.getdoc(policy) != inspect.getdoc(policy.__mro__[1])
    if issubclass(policy, Evicting):
        assert "arXiv" in inspect.getdoc(policy)


def test_every_policy_is_alone_in_a_file_whose_import_registers_it():
    ours = [one for one in POLICIES.values() if one.__module__.startswith("minikv.caches.")]
    assert len({policy.__module__ for policy in ours}) == len(ours) > 7
    imports = inspect.getsource(caches)
    for policy in ours:
        assert re.search(rf"(?m)^from \.\w+ import .*\b{policy.__name__}\b", imports)


def test_every_policy_has_examples_of_each_of_its_parameters():
    """Else the tests that run examples would never see a parameter set."""
    for policy in caches.POLICIES.values():
        given = {name for example in ALL if example.policy is policy for name in example.parameters}
        untested = set(policy(EXACT.weights, **policy.examples(5)[0]).parameters) - given
        assert untested <= {"forget"}  # needs windows: test_forget.py


def test_the_policy_in_the_manual_runs_and_has_twelve_lines_at_most():
    result = doctest.testfile(str(HOWTO), module_relative=False)
    assert result.failed == 0
    assert result.attempted
    text = HOWTO.read_text(encoding="utf-8")
    start = text.index("@minikv.caches.register")
    policy = text[start : text.index(">>> model", start)]
    assert len([line for line in policy.splitlines() if line.strip("> .")]) <= 12
    assert "._" not in policy  # nothing private


def test_what_tests_run_of_each_policy():
    """A setting that is left out here, or weakened, is run by no test any more."""
    assert [str(example) for example in examples(budget=6)] == [
        "full()",
        "h2o(budget=6)",
        "h2o(budget=6, recent=0)",
        "none()",
        "residual(budget=6)",
        "residual(budget=6, checkpoints='embedding', chunk=5)",
        "residual(budget=6, checkpoints='tokens', chunk=5)",
        "residual(budget=6, checkpoints='every', chunk=5)",
        "residual(budget=6, checkpoints=2, chunk=5)",
        "residual(budget=0)",
        "snapkv(budget=6)",
        "snapkv(budget=6, window=1, kernel=1)",
        "streaming_llm(budget=6, sinks=3)",
        "streaming_llm(budget=6, sinks=3, reposition=False)",
        "streaming_llm(budget=6, sinks=0)",
        "tova(budget=6)",
        "window(budget=6)",
        "scheduled(schedule=in_turns)",
    ]


def test_which_policies_look_at_weights_and_of_which_heads_go_their_own_ways():
    """All others leave the weights to a kernel that shows them to nobody."""
    watching = {name for name, policy in caches.POLICIES.items() if policy.watches}
    assert watching == {"h2o", "snapkv", "tova"}
    assert {name for name, policy in evicting().items() if policy.per_head} == {"h2o", "snapkv"}
    assert {name for name, policy in evicting().items() if policy.grows} == {"snapkv"}


def test_the_manual_names_policies_that_there_are():
    text = " ".join(HOWTO.read_text(encoding="utf-8").split())
    sentence = text[text.index("Among the policies are `full`") :].partition(". ")[0]
    named = set(re.findall(r"`(\w+)`", sentence))
    assert len(named) > 7
    assert named <= caches.POLICIES.keys()


def test_a_cache_passes_through():
    cache = EXACT.new_cache()
    assert make_cache(cache, EXACT.weights) is cache
    tokens = list(EXACT.generate(TEXT[:3], max_new_tokens=2, cache=cache))
    assert len(tokens) == 2
    assert cache.seen == 4
    assert isinstance(cache, minikv.caches.Cache)

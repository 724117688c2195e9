"""Caches driven in any order, against a plain list of token ids.

`Lossless` holds several branches, each a cache beside the text that it has seen, and checks every
call against the logits of that text in one fresh pass: the same bits. `Lossy` does the same with
the eviction policies, whose oracle is the history of calls replayed on a new cache.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from safetensors.numpy import load, save

import minikv
from minikv.caches import Cache, Residual, Scheduled
from minikv.errors import CacheError

LONGEST = 40
LAYERS, GROUPS, HEAD, WIDTH = 3, 2, 6, 24
MODELS = [
    minikv.random_model(
        minikv.tiny_config(num_hidden_layers=LAYERS, num_attention_heads=2 * GROUPS),
        seed=seed,
        arithmetic="exact",
        scale=scale,
    )
    for seed, scale in ((0, 1.0), (1, 3.0))
]
ROW = 2 * GROUPS * HEAD * 4  # bytes of one token's K and V at one layer


class Interrupted(Exception):
    pass


def same(a, b) -> bool:
    a, b = (np.ascontiguousarray(x) for x in (a, b))
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def through_a_file(cache: Cache) -> tuple[dict, dict]:
    """The state after a trip through the bytes of a file."""
    tensors, metadata = cache.state()
    return load(save(tensors, metadata)), metadata


class Branch:
    """A cache and what it has been through."""

    def __init__(self, cache: Cache, ids=(), history=()) -> None:
        self.cache, self.ids, self.history = cache, list(ids), list(history)
        self.broken = False  # whether the cache must be reset
        self.settled = True  # whether the last that happened was a whole call
        self.made_from_all = 0  # tokens fed while every token before them was held
        self.checked = False  # since it last changed


lossless_policies = st.one_of(
    st.just(("full", {})),
    st.just(("none", {})),
    st.tuples(
        st.just("residual"),
        st.fixed_dictionaries(
            {
                "budget": st.one_of(st.integers(0, 9), st.just(200)),
                "checkpoints": st.one_of(
                    st.sampled_from(["embedding", "tokens", "every"]),
                    st.integers(1, LAYERS),
                    st.sets(st.integers(1, LAYERS - 1)).map(lambda layers: {0} | layers),
                ),
            }
        ),
    ),
    st.tuples(st.just("scheduled"), st.fixed_dictionaries({"salt": st.integers(1, 2**20)})),
)


class Machine(RuleBasedStateMachine):
    """What both machines do; `made` makes an empty cache of the policy under test."""

    made = None

    def __init__(self) -> None:
        super().__init__()
        self.branches: list[Branch] = []

    def start(self, model, policy) -> None:
        self.model, (self.name, self.parameters) = model, policy
        self.branches = [Branch(self.new_cache())]

    def new_cache(self) -> Cache:
        if self.name == "scheduled":
            salt = self.parameters["salt"]

            def schedule(step: int, layer: int, position: int) -> str:
                mixed = (step * 73856093 ^ layer * 19349663 ^ position * 83492791) * salt
                return ("kv", "residual", "both")[(mixed >> 7) % 3]

            return Scheduled(self.model.weights, schedule)
        return self.model.new_cache(self.name, **self.parameters)

    def pick(self, which: int) -> Branch:
        return self.branches[which % len(self.branches)]

    def room(self, branch: Branch, ids: list[int]) -> list[int]:
        return ids[: LONGEST - len(branch.ids)]

    def call(self, chosen: list[tuple[Branch, list[int]]], stop_after: int | None = None) -> None:
        """One forward call with these branches; checks the logits of each."""
        activations = itertools.count()

        def hook(name, value):
            if next(activations) == stop_after:
                raise Interrupted
            self.within(chosen)
            return value

        for branch, ids in chosen:
            branch.checked = False
            if self.holds_all(branch):
                branch.made_from_all = len(branch.ids + ids)
        sequences, caches = [ids for _, ids in chosen], [branch.cache for branch, _ in chosen]
        got = np.asarray(self.model.forward(sequences, caches, logits="all", hook=hook))
        for branch, ids in chosen:
            branch.ids += ids
            branch.history.append(ids)
            branch.settled = True
            assert same(got[: len(ids)], self.expected(branch, len(ids)))
            got = got[len(ids) :]

    def holds_all(self, branch: Branch) -> bool:
        return True

    def within(self, chosen) -> None:
        """Checks inside a call, at every activation."""

    def expected(self, branch: Branch, count: int) -> np.ndarray:
        raise NotImplementedError

    whiches = st.integers(0, 3)
    texts = st.lists(st.integers(0, 96), min_size=1, max_size=8)

    @rule(which=whiches, ids=texts)
    def append(self, which, ids):
        branch = self.pick(which)
        if not branch.broken and (ids := self.room(branch, ids)):
            self.call([(branch, ids)])

    @rule(which=whiches, ids=texts)
    def append_one_by_one(self, which, ids):
        branch = self.pick(which)
        for token in [] if branch.broken else self.room(branch, ids):
            self.call([(branch, [token])])

    @rule(ids=st.lists(texts, min_size=2, max_size=4))
    def append_to_all_in_one_call(self, ids):
        chosen = [
            (b, self.room(b, t))
            for b, t in zip(self.branches, ids, strict=False)
            if self.room(b, t) and not b.broken
        ]
        if chosen:
            self.call(chosen)

    @precondition(lambda self: len(self.branches) < 4)
    @rule(which=whiches)
    def fork(self, which):
        branch = self.pick(which)
        if not branch.broken:
            twin = Branch(branch.cache.fork(), branch.ids, branch.history)
            twin.settled, twin.made_from_all = branch.settled, branch.made_from_all
            self.branches.append(twin)

    @precondition(lambda self: len(self.branches) > 1)
    @rule(which=whiches)
    def forget_a_branch(self, which):
        self.branches.remove(self.pick(which))

    @rule(which=whiches, share=st.floats(0, 1))
    def truncate(self, which, share):
        branch = self.pick(which)
        if not branch.broken:
            length = int(share * len(branch.ids))
            branch.cache.truncate(length)
            branch.settled = branch.checked = False
            branch.made_from_all = min(branch.made_from_all, length)
            branch.history.append(length)
            del branch.ids[length:]

    @rule(saved=whiches, loaded=whiches)
    def save_and_load(self, saved, loaded):
        saved, loaded = self.pick(saved), self.pick(loaded)
        if not saved.broken:
            loaded.cache.load_state(*through_a_file(saved.cache))
            loaded.ids, loaded.history = list(saved.ids), list(saved.history)
            loaded.broken, loaded.settled = False, saved.settled
            loaded.made_from_all, loaded.checked = saved.made_from_all, False

    @rule(which=whiches)
    def load_damaged(self, which):
        branch = self.pick(which)
        state, metadata = through_a_file(self.new_cache())
        name = max(state)
        state[name] = np.append(state[name], state[name].dtype.type(1))
        with pytest.raises(CacheError):
            branch.cache.load_state(state, metadata)

    @rule(which=whiches)
    def reset(self, which):
        branch = self.pick(which)
        branch.cache.reset()
        branch.ids, branch.history, branch.broken, branch.settled = [], [], False, True
        branch.made_from_all, branch.checked = 0, False

    @rule(which=whiches, ids=texts, after=st.integers(0, 60))
    def interrupt(self, which, ids, after):
        """A call that a hook ends at one of its 56 activations, or not at all."""
        branch = self.pick(which)
        if not branch.broken and (ids := self.room(branch, ids)):
            try:
                self.call([(branch, ids)], stop_after=after)
            except Interrupted:
                branch.settled = False
                self.after_interrupt(branch, after)

    def after_interrupt(self, branch: Branch, activations: int) -> None:
        raise NotImplementedError

    @invariant()
    def tokens_seen_are_counted(self):
        for branch in self.branches:
            assert branch.cache.seen == len(branch.ids)


class Lossless(Machine):
    """Full, none, residual and scheduled: nothing that is done to them changes a bit."""

    @initialize(model=st.sampled_from(MODELS), policy=lossless_policies)
    def choose(self, model, policy):
        self.start(model, policy)

    def expected(self, branch, count):
        return np.asarray(self.model.logits(branch.ids))[-count:]

    def after_interrupt(self, branch, activations):
        pass  # the branch goes on as if the call had not been

    def within(self, chosen):
        for branch, _ in chosen:
            if isinstance(branch.cache, Residual):
                budget = self.parameters["budget"]
                for ring in (*branch.cache._k, *branch.cache._v):
                    assert ring.shape == (min(budget, 128), GROUPS, HEAD)

    @invariant()
    def bytes_follow_the_formula(self):
        for branch in self.branches:
            cache, seen = branch.cache, len(branch.ids)
            if self.name == "full":
                assert (cache.stored, cache.nbytes) == (seen, seen * LAYERS * ROW)
            elif self.name == "none":
                assert (cache.stored, cache.nbytes) == (0, 4 * seen)
            elif self.name == "residual":
                vectors = len(cache.layers_kept) * WIDTH * 4
                token = 4 if self.parameters["checkpoints"] == "tokens" else vectors
                assert cache.stored <= min(seen, self.parameters["budget"])
                if branch.settled:
                    assert cache.stored == min(seen, self.parameters["budget"])
                assert cache.nbytes == cache.stored * LAYERS * ROW + seen * token
            else:
                held = cache.state()[0]
                kv = sum(int(held[f"has_kv.{layer}"].sum()) for layer in range(LAYERS))
                residuals = sum(int(held[f"has_residual.{layer}"].sum()) for layer in range(LAYERS))
                assert all(
                    (held[f"has_kv.{layer}"] | held[f"has_residual.{layer}"]).all()
                    for layer in range(LAYERS)
                )
                assert cache.nbytes == kv * ROW + residuals * WIDTH * 4


eviction_policies = st.integers(1, 9).flatmap(
    lambda budget: st.one_of(
        st.just(("window", {"budget": budget})),
        st.just(("tova", {"budget": budget})),
        st.tuples(
            st.just("streaming_llm"),
            st.fixed_dictionaries(
                {
                    "budget": st.just(budget),
                    "sinks": st.integers(0, budget - 1),
                    "reposition": st.booleans(),
                }
            ),
        ),
        st.tuples(
            st.just("h2o"),
            st.fixed_dictionaries({"budget": st.just(budget), "recent": st.integers(0, budget)}),
        ),
        st.tuples(
            st.just("snapkv"),
            st.fixed_dictionaries(
                {
                    "budget": st.just(budget),
                    "window": st.integers(1, budget),
                    "kernel": st.sampled_from([1, 3, 7]),
                }
            ),
        ),
    )
)


class Lossy(Machine):
    """The eviction policies: what they hold is what they promise, however it came about."""

    @initialize(model=st.sampled_from(MODELS), policy=eviction_policies)
    def choose(self, model, policy):
        self.start(model, policy)

    def expected(self, branch, count):
        cache, logits = self.new_cache(), None
        for step in branch.history:
            if isinstance(step, int):
                cache.truncate(step)
            else:
                logits = np.asarray(self.model.forward([step], [cache], logits="all"))
        return logits

    def holds_all(self, branch):
        return all(len(k) == branch.cache.seen for k in branch.cache._k)

    def within(self, chosen):
        """Only the layer at work holds more than the budget: by the tokens of the call."""
        if self.name == "snapkv":
            return  # generated tokens are kept beyond the budget
        for branch, ids in chosen:
            rows = [len(k) for k in branch.cache._k]
            assert sum(count > self.parameters["budget"] for count in rows) <= 1
            assert max(rows) <= self.parameters["budget"] + len(ids)

    def after_interrupt(self, branch, activations):
        try:
            branch.cache.state()
        except CacheError:
            branch.broken = True
        assert branch.broken == (activations >= 8)  # eight come before the cache is first asked

    @rule(which=Machine.whiches)
    def use_what_was_interrupted(self, which):
        branch = self.pick(which)
        if branch.broken:
            for use in (
                branch.cache.fork,
                branch.cache.state,
                lambda: branch.cache.truncate(0),
                lambda: self.model.forward([[1]], [branch.cache]),
            ):
                with pytest.raises(CacheError, match="interrupted"):
                    use()

    @invariant()
    def what_is_held_is_what_was_promised(self):
        for branch in self.branches:
            if not branch.broken and not branch.checked:
                self.check(branch)
                branch.checked = True

    def check(self, branch):
        cache, seen, budget = branch.cache, len(branch.ids), self.parameters["budget"]
        held = cache.state()[0]
        full = self.model.new_cache()
        if branch.ids:
            self.model.forward([branch.ids], [full])
        rows = full.state()[0]
        prompt = len(branch.history[0]) if branch.history and branch.history[0] else 0
        stored = []
        for layer in range(LAYERS):
            positions, k, v = (held[f"{name}.{layer}"] for name in ("positions", "k", "v"))
            assert positions.shape == (len(k), GROUPS)
            assert k.shape == v.shape == (len(k), GROUPS, HEAD)
            assert (np.diff(positions, axis=0) > 0).all()  # sorted, each once
            assert ((positions >= 0) & (positions < seen)).all()
            stored.append(len(k))
            for head, at in enumerate(positions.T):
                whole = at < branch.made_from_all
                assert same(k[whole, head], rows[f"k.{layer}"][at[whole], head])
                assert same(v[whole, head], rows[f"v.{layer}"][at[whole], head])
                if layer == 0:  # made from the token alone
                    assert same(v[:, head], rows["v.0"][at, head])
                if not any(isinstance(step, int) for step in branch.history):
                    self.check_kept(set(at.tolist()), seen, budget, prompt)
        assert cache.stored == stored[0]
        assert cache.nbytes == sum(stored) * ROW
        if self.name != "snapkv":
            assert max(stored) <= budget

    def check_kept(self, kept, seen, budget, prompt):
        """What every head must hold when nothing was truncated."""
        size = min(seen, budget)
        must = {
            "window": lambda: range(seen - size, seen),
            "streaming_llm": lambda: [
                t
                for t in range(seen)
                if t < self.parameters["sinks"] or t >= seen - (budget - self.parameters["sinks"])
            ],
            "h2o": lambda: range(max(0, seen - self.parameters["recent"]), seen),
            "snapkv": lambda: range(max(0, prompt - self.parameters["window"]), seen),
            "tova": lambda: (),
        }[self.name]()
        assert kept.issuperset(must)
        assert len(kept) == (min(prompt, budget) + seen - prompt if self.name == "snapkv" else size)


@pytest.mark.parametrize("machine", [Lossless, Lossy])
def test_machine(machine):
    examples = settings.default.max_examples // 2
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=20)
    )

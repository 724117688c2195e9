"""Caches driven in any order, against a plain list of token ids.

`Lossless` holds several branches, each a cache beside the text that it has seen, and checks every
call against the logits of that text in one fresh pass: the same bits. `Lossy` does the same with
the eviction policies, whose oracle is the history of calls replayed on a new cache.
"""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from bits import assert_same_bits
from feeding import LAYERS, LOSSLESS, Stop, settings_of
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
from minikv.caches import Cache, Example, Full, NoCache, Residual, Scheduled, evicting
from minikv.caches.scheduled import Schedule
from minikv.config import FULL, SLIDING
from minikv.errors import CacheError

LONGEST = 40
GROUPS = 2
HEAD = 6
WIDTH = 24
WINDOWS = {
    "model_type": "mistral",
    "sliding_window": 7,
    "layer_types": (SLIDING, FULL, SLIDING),
}
MODELS = [
    minikv.random_model(
        minikv.tiny_config(num_hidden_layers=LAYERS, num_attention_heads=share * GROUPS, **windows),
        seed=seed,
        arithmetic="exact",
        scale=scale,
    )
    for seed, (share, scale, windows) in enumerate(
        [(2, 1.0, {}), (2, 3.0, {}), (1, 3.0, WINDOWS), (5, 1.0, WINDOWS)]
    )
]
ROW = 2 * GROUPS * HEAD * 4  # bytes of one token's K and V at one layer


def activations_before_the_cache() -> int:
    """How many activations of a call pass before its cache is first asked to `update`."""
    passed = []

    class Asked(Full):
        def update(self, *_):
            raise Stop

    def hook(name, value):
        passed.append(name)
        return value

    model = MODELS[0]
    with contextlib.suppress(Stop):
        model.forward([[1]], [Asked(model.weights)], hook=hook)
    return len(passed)


BEFORE_THE_CACHE = activations_before_the_cache()


def through_a_file(cache: Cache) -> tuple[dict, dict]:
    """The state after a trip through the bytes of a file."""
    tensors, metadata = cache.state()
    return load(save(tensors, metadata)), metadata


class Branch:
    """A cache and what it has been through."""

    def __init__(self, cache: Cache, ids=(), history=()) -> None:
        self.cache = cache
        self.ids = list(ids)
        self.history = list(history)
        self.broken = False  # whether the cache must be reset
        self.settled = True  # whether the last that happened was a whole call
        self.made_from_all = 0  # tokens fed while every token before them was held
        self.checked = False  # since it last changed


def by_hash(salt: int) -> Schedule:
    """A schedule that decides by a hash of step, layer and position."""

    def schedule(step: int, layer: int, position: int) -> str:
        mixed = (step * 73856093 ^ layer * 19349663 ^ position * 83492791) * salt
        return ("kv", "residual", "both")[(mixed >> 7) % 3]

    return schedule


residuals = st.fixed_dictionaries(
    {
        "budget": st.one_of(st.integers(0, 9), st.just(200)),
        "checkpoints": st.one_of(
            st.sampled_from(["embedding", "tokens", "every"]),
            st.integers(1, LAYERS),
            st.sets(st.integers(1, LAYERS - 1)).map(lambda layers: {0} | layers),
        ),
        "chunk": st.sampled_from([3, 256]),
    }
)
schedules = st.fixed_dictionaries({"schedule": st.integers(1, 2**20).map(by_hash)})
lossless_examples = st.one_of(
    st.sampled_from(LOSSLESS),
    residuals.map(lambda parameters: Example(Residual, parameters)),
    schedules.map(lambda parameters: Example(Scheduled, parameters)),
)


@st.composite
def evicting_examples(draw) -> Example:
    policy = draw(st.sampled_from(list(evicting().values())))
    return Example(policy, draw(settings_of(policy, draw(st.integers(1, 9)))))


class Machine(RuleBasedStateMachine):
    """What both machines do."""

    def __init__(self) -> None:
        super().__init__()
        self.branches: list[Branch] = []

    def start(self, model: minikv.Model, example: Example) -> None:
        self.model = model
        self.example = example
        self.branches = [Branch(self.new_cache())]

    def new_cache(self) -> Cache:
        return self.example.new(self.model.weights)

    def pick(self, which: int) -> Branch:
        return self.branches[which % len(self.branches)]

    def room(self, branch: Branch, ids: list[int]) -> list[int]:
        return ids[: LONGEST - len(branch.ids)]

    def call(self, chosen: list[tuple[Branch, list[int]]], stop_after: int | None = None) -> None:
        """One forward call with these branches; checks the logits of each."""
        activations = itertools.count()

        def hook(name, value):
            if next(activations) == stop_after:
                raise Stop
            self.within(chosen)
            return value

        for branch, ids in chosen:
            branch.checked = False
            if self.holds_all(branch):
                branch.made_from_all = len(branch.ids + ids)
        sequences = [ids for _, ids in chosen]
        caches = [branch.cache for branch, _ in chosen]
        got = np.asarray(self.model.forward(sequences, caches, logits="all", hook=hook))
        for branch, ids in chosen:
            branch.ids += ids
            branch.history.append(ids)
            branch.settled = True
            assert_same_bits(got[: len(ids)], self.expected(branch, len(ids)))
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
            twin.settled = branch.settled
            twin.made_from_all = branch.made_from_all
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
        source = self.pick(saved)
        target = self.pick(loaded)
        if not source.broken:
            target.cache.load_state(*through_a_file(source.cache))
            target.ids = list(source.ids)
            target.history = list(source.history)
            target.broken = False
            target.settled = source.settled
            target.made_from_all = source.made_from_all
            target.checked = False

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
        branch.ids = []
        branch.history = []
        branch.broken = False
        branch.settled = True
        branch.made_from_all = 0
        branch.checked = False

    @rule(which=whiches, ids=texts, after=st.integers(0, 60))
    def interrupt(self, which, ids, after):
        """A call that a hook ends at one of its activations, or not at all."""
        branch = self.pick(which)
        if not branch.broken and (ids := self.room(branch, ids)):
            try:
                self.call([(branch, ids)], stop_after=after)
            except Stop:
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

    @initialize(model=st.sampled_from(MODELS), example=lossless_examples)
    def choose(self, model, example):
        self.start(model, example)

    def expected(self, branch, count):
        return np.asarray(self.model.logits(branch.ids))[-count:]

    def after_interrupt(self, branch, activations):
        pass  # the branch goes on as if the call had not been

    @invariant()
    def bytes_follow_the_formula(self):
        for branch in self.branches:
            cache = branch.cache
            seen = len(branch.ids)
            if isinstance(cache, Full):
                assert (cache.stored, cache.nbytes) == (seen, seen * LAYERS * ROW)
            elif isinstance(cache, NoCache):
                assert (cache.stored, cache.nbytes) == (0, 4 * seen)
            elif isinstance(cache, Residual):
                self.check_residual(branch, cache)
            elif isinstance(cache, Scheduled):
                self.check_scheduled(cache)

    def check_residual(self, branch, cache):
        seen = len(branch.ids)
        vectors = len(cache.layers_kept) * WIDTH * 4
        token = 4 if cache.checkpoints == "tokens" else vectors
        assert cache.stored <= min(seen, cache.budget)
        if branch.settled:
            assert cache.stored == min(seen, cache.budget)
        assert cache.nbytes == cache.stored * LAYERS * ROW + seen * token

    def check_scheduled(self, cache):
        held = cache.state()[0]
        has_kv = [held[f"has_kv.{layer}"] for layer in range(LAYERS)]
        has_residual = [held[f"has_residual.{layer}"] for layer in range(LAYERS)]
        assert all((a | b).all() for a, b in zip(has_kv, has_residual, strict=True))
        assert cache.nbytes == np.sum(has_kv) * ROW + np.sum(has_residual) * WIDTH * 4


class Lossy(Machine):
    """The eviction policies: what they hold is what they promise, however it came about."""

    @initialize(model=st.sampled_from(MODELS), example=evicting_examples())
    def choose(self, model, example):
        self.start(model, example)

    def expected(self, branch, count):
        cache = self.new_cache()
        logits = None
        for step in branch.history:
            if isinstance(step, int):
                cache.truncate(step)
            else:
                logits = np.asarray(self.model.forward([step], [cache], logits="all"))
        return logits

    def holds_all(self, branch):
        return all(len(rows) == branch.cache.seen for rows in branch.cache.rows)

    def within(self, chosen):
        """Only the layer at work holds more than the budget: by the tokens of the call."""
        for branch, ids in chosen:
            cache = branch.cache
            if not cache.grows:
                counts = [len(rows) for rows in cache.rows]
                assert sum(count > cache.budget for count in counts) <= 1
                assert max(counts) <= cache.budget + len(ids)

    def after_interrupt(self, branch, activations):
        try:
            branch.cache.state()
        except CacheError:
            branch.broken = True
        assert branch.broken == (activations >= BEFORE_THE_CACHE)

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
        cache = branch.cache
        seen = len(branch.ids)
        held = cache.state()[0]
        full = self.model.new_cache()
        if branch.ids:
            self.model.forward([branch.ids], [full])
        rows = full.state()[0]
        stored = []
        for layer in range(LAYERS):
            positions, k, v = (held[f"{name}.{layer}"] for name in ("positions", "k", "v"))
            assert positions.shape == (len(k), GROUPS)
            assert k.shape == v.shape == (len(k), GROUPS, HEAD)
            assert (np.diff(positions, axis=0) > 0).all()  # sorted, each once
            assert ((positions >= 0) & (positions < seen)).all()
            stored.append(len(k))
            for head, own in enumerate(positions.T):
                whole = own < branch.made_from_all
                assert_same_bits(k[whole, head], rows[f"k.{layer}"][own[whole], head])
                assert_same_bits(v[whole, head], rows[f"v.{layer}"][own[whole], head])
                if layer == 0:  # made from the token alone
                    assert_same_bits(v[:, head], rows["v.0"][own, head])
                if not any(isinstance(step, int) for step in branch.history):
                    self.check_kept(set(own.tolist()), branch)
        assert cache.stored == stored[0]
        assert cache.nbytes == sum(stored) * ROW
        if not cache.grows:
            assert max(stored) <= cache.budget

    def check_kept(self, kept, branch):
        """What every head must hold when nothing was truncated."""
        cache = branch.cache
        seen = len(branch.ids)
        prompt = len(branch.history[0]) if branch.history else 0
        assert kept.issuperset(self.must_hold(cache, seen, prompt))
        if cache.grows:
            assert len(kept) == min(prompt, cache.budget) + seen - prompt
        else:
            assert len(kept) == min(seen, cache.budget)

    def must_hold(self, cache, seen, prompt):
        """Tokens that the policies whose promises we know have to hold."""
        newest = {  # how many
            "window": lambda: cache.budget,
            "streaming_llm": lambda: cache.budget - cache.sinks,
            "h2o": lambda: cache.recent,
            "snapkv": lambda: cache.window + seen - prompt,
        }.get(cache.policy, lambda: 0)()
        first = cache.sinks if cache.policy == "streaming_llm" else 0
        return {*range(min(first, seen)), *range(max(0, seen - newest), seen)}


@pytest.mark.parametrize("machine", [Lossless, Lossy])
def test_machine(machine):
    examples = settings.default.max_examples // 2
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=20)
    )

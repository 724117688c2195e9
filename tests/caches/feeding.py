"""What the tests of caches share: a model, a text, ways of feeding it, and all policies."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minikv
from minikv.caches import POLICIES, Cache, Evicting, examples, register

LAYERS = 3
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def random_model(seed: int = 1, arithmetic: str = "exact", **changes: Any) -> minikv.Model:
    config = minikv.tiny_config(**({"num_hidden_layers": LAYERS} | changes))
    return minikv.random_model(config, seed, arithmetic)


EXACT = random_model()
KV_BYTES = LAYERS * 2 * 2 * 6 * 4  # of one token: layers, K and V, heads, head_dim, float32
VECTOR_BYTES = 24 * 4  # of one row of the stream

# Every setting of every policy that the registry knows of: a new policy is tested by being there.
ALL = examples()
EVICTING = examples(Evicting)
LOSSLESS = [example for example in ALL if example not in EVICTING]


def feed(model: minikv.Model, cache: Cache, ids: Sequence[int], *sizes: int) -> np.ndarray:
    """Logits of `ids`, fed in calls of these sizes and then the rest."""
    edges = np.cumsum([0, *sizes, len(ids) - sum(sizes)])
    calls = [ids[start:stop] for start, stop in itertools.pairwise(edges) if stop > start]
    return np.concatenate([np.asarray(model.forward([c], [cache], logits="all")) for c in calls])


FULL = feed(EXACT, EXACT.new_cache(), TEXT)


def in_calls(cuts: set[int]) -> list[int]:
    """Sizes of the calls in which TEXT is fed if it is cut there."""
    edges = [0, *sorted(cuts), len(TEXT)]
    return [stop - start for start, stop in itertools.pairwise(edges)]


callings = st.sets(st.integers(1, len(TEXT) - 1), max_size=5).map(in_calls)


def settings_of(policy: type[Evicting], budget: int) -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of an eviction policy: all that it takes where we know it, else its examples."""
    fixed = st.just(budget)
    known = {
        "h2o": {"budget": fixed, "recent": st.integers(0, budget)},
        "snapkv": {
            "budget": fixed,
            "window": st.integers(1, budget),
            "kernel": st.sampled_from([1, 3, 7]),
        },
        "streaming_llm": {
            "budget": fixed,
            "sinks": st.integers(0, budget - 1),
            "reposition": st.booleans(),
        },
    }
    if policy.policy in known:
        return st.fixed_dictionaries(known[policy.policy])
    return st.sampled_from(policy.examples(budget))


class Stop(Exception):
    pass


def stop_after(count: int) -> Callable[[str, Any], Any]:
    """A hook that lets so many activations pass and raises at the next."""
    passed = itertools.count()

    def hook(name: str, value: Any) -> Any:
        if next(passed) == count:
            raise Stop
        return value

    return hook


def interrupt(cache: Cache, ids: Sequence[int], count: int) -> bool:
    """Whether a call of `ids` was interrupted after `count` activations."""
    try:
        EXACT.forward([ids], [cache], hook=stop_after(count))
    except Stop:
        return True
    return False


@contextlib.contextmanager
def registered(*policies: type[Cache]) -> Iterator[None]:
    """Policies that are registered for a while, as is what is registered meanwhile."""
    before = dict(POLICIES)
    try:
        for policy in policies:
            register(policy)
        yield
    finally:
        POLICIES.clear()
        POLICIES.update(before)

"""What a decoder asks of a cache, in which order, and what a policy must answer by itself."""

from __future__ import annotations

import numpy as np
import pytest
from feeding import EXACT, LAYERS, TEXT, feed

from minikv.caches import POLICIES, TOVA, Cache, Evicting, NoCache, Residual, Scheduled
from minikv.caches.residual.replay import Prefix
from minikv.caches.saving import Savable
from minikv.errors import CacheError


def test_a_call_goes_through_the_protocol_in_its_order():
    """`begin`; at each layer `update`, `observe` for each run of queries, `evict`; `advance`."""
    asked = []

    class Recording(TOVA):
        def begin(self, ids):
            asked.append("begin")
            return super().begin(ids)

        def update(self, layer, *rows):
            asked.append(f"update {layer.index}")
            return super().update(layer, *rows)

        def observe(self, layer, positions, pattern):
            asked.append(f"observe {layer.index}")
            assert pattern.shape[:2] == (4, len(positions))
            super().observe(layer, positions, pattern)

        def evict(self, layer):
            asked.append(f"evict {layer.index}")
            super().evict(layer)

        def advance(self, tokens):
            assert self.seen == 0
            asked.append(f"advance {tokens}")
            super().advance(tokens)

    cache = Recording(EXACT.weights, budget=128)
    feed(EXACT, cache, np.arange(70))
    runs = ("update", "observe", "observe", "observe", "evict")  # of 32, 32 and 6 queries
    layers = [f"{name} {index}" for index in range(LAYERS) for name in runs]
    assert asked == ["begin", *layers, "advance 70"]
    assert cache.seen == 70


@pytest.mark.parametrize("name", POLICIES)
def test_what_every_policy_writes_is_what_the_base_leaves_open(name):
    required = ("reset", "update", "nbytes", "_tensors", "_restore")
    policy = POLICIES[name]
    assert all(getattr(policy, method) is not getattr(Cache, method) for method in required)


def test_what_the_base_leaves_open_says_so():
    class Nothing(Cache):
        pass

    cache = Nothing(EXACT.weights)
    layer = EXACT.layers[0]
    uses = (
        lambda: cache.update(layer, *[np.zeros(1)] * 4),
        lambda: cache.nbytes,
        cache.state,
        lambda: cache._restore({}),
        lambda: Evicting(EXACT.weights, budget=3).priority(None),
        lambda: Savable.parameters.fget(cache),
        lambda: Savable.longest.fget(cache),
        lambda: Savable._twin(cache, {}, 0),
    )
    for use in uses:
        with pytest.raises(NotImplementedError):
            use()
    assert cache.seen == 0
    assert cache.observe(layer, np.zeros(1), np.zeros(1)) is None
    assert cache.evict(layer) is None


@pytest.mark.parametrize("length", [-1, 1.5, 4])
def test_a_length_that_no_cache_can_be_cut_to_is_refused(length):
    cache = EXACT.new_cache()
    EXACT.forward([TEXT[:3]], [cache])
    with pytest.raises(CacheError):
        cache.truncate(length)
    assert cache.seen == 3


def rows_run(cache: Cache, *sizes: int) -> list[int]:
    """How many rows each call of these sizes runs."""
    run = []

    def count(name, value):
        if name == "hook_embed":
            run.append(len(value))
        return value

    start = 0
    for size in sizes:
        EXACT.forward([TEXT[start : start + size]], [cache], hook=count)
        start += size
    return run


def test_without_a_cache_every_token_runs_at_every_call():
    assert rows_run(NoCache(EXACT.weights), 5, 1, 1, 3) == [5, 6, 7, 10]
    assert rows_run(EXACT.new_cache(), 5, 1, 1, 3) == [5, 1, 1, 3]


def test_a_replayed_block_asks_its_memory_for_nothing_but_update_and_evict(monkeypatch):
    expected = feed(EXACT, EXACT.new_cache(), TEXT)
    evicted = []
    for name in ("begin", "observe", "advance"):
        monkeypatch.setattr(Prefix, name, None)
    monkeypatch.setattr(Prefix, "evict", lambda self, layer: evicted.append(layer.index))
    assert (feed(EXACT, Residual(EXACT.weights, budget=2), TEXT, 9, 1) == expected).all()
    assert {*evicted} == {0, 1}  # the last layer's K and V are a projection


def test_what_a_replay_remembers_answers_the_rest_of_the_protocol():
    """Which nobody asks for: it says what a memory of a text that begins here would say."""
    memory = Prefix(np.zeros((3, 2, 6)), np.zeros((3, 2, 6)))
    ids, positions = memory.begin(np.array([7, 8]))
    assert (ids.tolist(), positions.tolist()) == ([7, 8], [0, 1])
    assert memory.observe(EXACT.layers[0], positions, np.zeros((4, 2, 2))) is None
    assert memory.advance(2) is None
    assert not memory.watches


def test_a_schedule_of_k_and_v_alone_leaves_nan_where_a_residual_was():
    cache = Scheduled(EXACT.weights, lambda step, layer, position: "kv")
    feed(EXACT, cache, TEXT[:5])
    held = cache.state()[0]
    assert np.isnan(held["residual.1"]).all()
    assert not np.isnan(held["k.1"]).any()

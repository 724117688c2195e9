"""Scheduled: a schedule is asked step by step, and obeyed."""

from __future__ import annotations

import numpy as np
import pytest
from feeding import EXACT, KV_BYTES, LAYERS, TEXT, VECTOR_BYTES, feed

from minikv.caches import Scheduled
from minikv.errors import CacheError


def test_a_schedule_is_asked_step_by_step_also_after_saving():
    asked = []

    def schedule(step: int, layer: int, position: int) -> str:
        asked.append(step)
        return ("kv", "residual", "both")[(step + layer + position) % 3]

    cache = Scheduled(EXACT.weights, schedule)
    for step, part in enumerate((TEXT[:5], TEXT[5:6], TEXT[6:9])):
        if step == 2:
            saved = cache
            cache = Scheduled(EXACT.weights, schedule)
            cache.load_state(*saved.state())
        asked.clear()
        EXACT.forward([part], [cache])
        assert set(asked) == {step}


@pytest.mark.parametrize(
    ("steps", "kv", "rows"),
    [
        (["residual"], False, True),
        (["kv"], True, False),
        (["residual", "both"], True, True),
    ],
)
def test_a_schedule_is_obeyed(steps, kv, rows):
    """Else T4, whose answers are the same whatever is kept, would test nothing."""
    cache = Scheduled(EXACT.weights, lambda step, layer, position: steps[step])
    for step in range(len(steps)):
        EXACT.forward([TEXT[5 * step : 5 * step + 5]], [cache])
    state = cache.state()[0]
    for names, there in ((("k.1", "v.1"), kv), (("residual.1",), rows)):
        for name in names:
            assert np.isnan(state[name]).all() != there
    assert (state["has_kv.1"] == kv).all()
    assert (state["has_residual.1"] == rows).all()


def test_a_schedule_is_obeyed_at_each_layer_and_position():
    kinds = ("kv", "residual", "both")
    cache = Scheduled(EXACT.weights, lambda step, layer, position: kinds[(layer + position) % 3])
    feed(EXACT, cache, TEXT[:7])
    state = cache.state()[0]
    for layer in range(LAYERS):
        wanted = [kinds[(layer + position) % 3] for position in range(7)]
        assert state[f"has_kv.{layer}"].tolist() == [kind != "residual" for kind in wanted]
        assert state[f"has_residual.{layer}"].tolist() == [kind != "kv" for kind in wanted]
        for kind, name in (("has_kv", "k"), ("has_kv", "v"), ("has_residual", "residual")):
            rows = state[f"{name}.{layer}"].reshape(7, -1)
            assert (np.isnan(rows).all(axis=1) == ~state[f"{kind}.{layer}"]).all()


def test_what_was_dropped_and_is_wanted_again_stays_as_it_is():
    """A residual that is gone comes back from nothing, so that K and V stay."""
    cache = Scheduled(EXACT.weights, lambda step, layer, position: ("kv", "residual")[step])
    feed(EXACT, cache, TEXT[:7], 5)
    state = cache.state()[0]
    assert state["has_kv.1"].tolist() == [True] * 5 + [False] * 2
    assert state["has_residual.1"].tolist() == [False] * 5 + [True] * 2


def test_a_schedule_that_keeps_nothing_is_refused():
    with pytest.raises(CacheError, match="the schedule says 'drop', expected kv, residual or both"):
        feed(EXACT, Scheduled(EXACT.weights, lambda *_: "drop"), TEXT)


def test_steps_are_counted_on_however_many_there_were_before_saving():
    asked = []

    def schedule(step: int, layer: int, position: int) -> str:
        asked.append(step)
        return "both"

    cache = Scheduled(EXACT.weights, schedule)
    for step, token in enumerate(TEXT[:20]):
        loaded = Scheduled(EXACT.weights, schedule)
        loaded.load_state(*cache.state())
        cache = loaded
        asked.clear()
        EXACT.forward([[token]], [cache])
        assert set(asked) == {step}


def test_bytes_are_those_of_each_layer():
    """Whose schedules differ: one keeps K and V, one rows of the stream, one both."""
    kinds = ("kv", "residual", "both")
    cache = Scheduled(EXACT.weights, lambda step, layer, position: kinds[layer])
    feed(EXACT, cache, TEXT[:7])
    kv, row = KV_BYTES // LAYERS, VECTOR_BYTES
    assert cache.nbytes == 7 * (kv + row + kv + row)


@pytest.mark.parametrize(
    ("first", "others", "stored"), [("kv", "residual", 7), ("residual", "kv", 0)]
)
def test_what_is_stored_is_what_the_first_layer_holds(first, others, stored):
    cache = Scheduled(EXACT.weights, lambda step, layer, position: others if layer else first)
    feed(EXACT, cache, TEXT[:7])
    assert cache.stored == stored

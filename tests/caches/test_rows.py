"""The rows of an evicting cache, against a plain list of them."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.caches.rows import FEWEST, Rows

LAYER = minikv.random_model(minikv.tiny_config(), 0).weights.layers[0]
GROUPS = LAYER.config.num_key_value_heads
WIDTH = LAYER.config.head_dim


def empty(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)  # what is read before it is written is seen


@st.composite
def actions(draw) -> tuple[str, int]:
    acts = ["append", "keep", "keep alike", "drop", "drop alike", "cut"]
    return draw(st.sampled_from(acts)), draw(st.integers(0, 40))


@given(seed=st.integers(0, 2**32 - 1), acts=st.lists(actions(), max_size=30))
def test_rows_are_what_was_appended_kept_and_cut(seed, acts):
    rng = np.random.default_rng(seed)
    rows = Rows(LAYER, {"positions": np.int64, "scores": np.float64}, empty)
    keys = np.empty((0, GROUPS, WIDTH), np.float32)
    values = np.empty((0, GROUPS, WIDTH), np.float32)
    positions = np.empty((0, GROUPS), np.int64)
    seen = 0
    for act, size in acts:
        held = len(positions)
        if act == "append":
            new = rng.standard_normal((2, size, GROUPS, WIDTH)).astype(np.float32)
            at = np.arange(seen, seen + size)
            seen += size
            rows.append(at, *new)
            assert not rows.scores[held:].any()
            rows.scores[held:] = 1 + at[:, None]
            keys, values = np.concatenate([keys, new[0]]), np.concatenate([values, new[1]])
            positions = np.concatenate([positions, np.repeat(at[:, None], GROUPS, axis=1)])
        elif act == "cut":
            count = min(size, held)
            rows.cut(count)
            keys, values, positions = keys[:count], values[:count], positions[:count]
        elif held:
            count = held - 1 if act.startswith("drop") else 1 + min(size, held - 1)
            chosen = [np.sort(rng.choice(held, count, replace=False)) for _ in range(GROUPS)]
            kept = np.stack(chosen[:1] * GROUPS if act.endswith("alike") else chosen, axis=1)
            if act.startswith("drop"):
                everything = np.arange(held)
                gone = [np.setdiff1d(everything, column)[0] for column in kept.T]
                rows.drop(np.array(gone))
            else:
                rows.keep(kept)
            keys = np.take_along_axis(keys, kept[:, :, None], axis=0)
            values = np.take_along_axis(values, kept[:, :, None], axis=0)
            positions = np.take_along_axis(positions, kept, axis=0)
        assert len(rows) == len(positions)
        assert_same_bits(rows.keys, keys)
        assert_same_bits(rows.values, values)
        assert_same_bits(rows.positions, positions)
        assert_same_bits(rows.scores, 1.0 + positions)


def rows_of(count: int) -> Rows:
    """So many tokens, appended at once: there is room for twice as many."""
    rows = Rows(LAYER, {"positions": np.int64, "scores": np.float64}, empty)
    append(rows, count)
    return rows


def append(rows: Rows, count: int) -> None:
    """Add tokens behind those that are there, of keys and values that are 0."""
    new = np.zeros((count, GROUPS, WIDTH), np.float32)
    rows.append(np.arange(len(rows), len(rows) + count), new, new)


def keep_newest(rows: Rows, count: int) -> None:
    newest = np.arange(len(rows) - count, len(rows))
    rows.keep(np.repeat(newest[:, None], GROUPS, axis=1))


def room(rows: Rows) -> int:
    """For how many tokens a layer's buffers have room."""
    assert rows.keys.base is not None
    return rows.keys.base.shape[1]


def test_room_is_given_back_after_a_long_prompt():
    rows = rows_of(1000)
    keep_newest(rows, 20)
    assert room(rows) == 40 > FEWEST


@pytest.mark.parametrize(("count", "kept"), [(40, 20), (32, 1)])
def test_room_is_kept_up_to_four_times_what_is_needed(count, kept):
    """And one token counts as 16."""
    rows = rows_of(count)
    keep_newest(rows, kept)
    assert room(rows) == 2 * count == 4 * max(kept, 16)
    rows = rows_of(count + 1)
    keep_newest(rows, kept)
    assert room(rows) == max(2 * kept, 16)


def test_buffers_grow_once_they_are_full_and_not_before():
    rows = rows_of(20)
    append(rows, 20)
    assert room(rows) == 40
    append(rows, 1)
    assert room(rows) == 82


def test_a_window_moves_no_row():
    rows = rows_of(20)
    before = rows.keys[1].ctypes.data
    keep_newest(rows, 19)
    assert rows.keys[0].ctypes.data == before


def test_of_older_rows_each_moves_up_by_one_and_newer_ones_stay():
    rows = rows_of(20)
    rows.scores[:] = np.arange(20)[:, None]
    newest = rows.keys[19].ctypes.data
    rows.drop(np.array([3] * GROUPS))
    assert rows.positions[:, 0].tolist() == [0, 1, 2, *range(4, 20)]
    assert_same_bits(rows.scores, rows.positions.astype(np.float64))
    assert rows.keys[18].ctypes.data == newest


def test_room_is_given_back_after_a_single_row_too():
    rows = rows_of(60)
    rows.cut(31)
    rows.drop(np.zeros(GROUPS, int))
    assert room(rows) == 120 == 4 * 30
    rows.cut(30)
    rows.drop(np.zeros(GROUPS, int))
    assert room(rows) == 58

"""Each tier reads the rows that were written, and one that cannot be had is left out."""

from __future__ import annotations

import os

import numpy as np
import pytest
from bits import assert_same_bits
from experiments.toys import tiny

from minikv.experiments.tiers import MEMORY, Stored, tiers

PAST = [
    "file, past the page cache",
    "mapped file, past the page cache",
    "file, scattered, 64 rows a read, past the page cache",
    "file, scattered, 8 rows a read, past the page cache",
    "file, scattered, a row a read, past the page cache",
]
linux = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")


@pytest.fixture
def stored(tmp_path) -> Stored:
    rows = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    return Stored.written(tmp_path, rows)


@pytest.mark.parametrize("read", ["copy", "read", "read_mapped"])
def test_a_tier_reads_every_row(stored, read):
    assert not stored.room.any()
    getattr(stored, read)()
    assert_same_bits(stored.room, stored.rows)


@linux
@pytest.mark.parametrize("together", [1, 3, 10, 64])  # of 10 rows
def test_scattered_reads_read_every_row(stored, together):
    stored.read_scattered(together)
    assert_same_bits(stored.room, stored.rows)


@linux
def test_a_file_that_was_forgotten_is_read_again_from_below(stored):
    stored.read()
    assert isinstance(stored.forget(), bool)  # false where the folder is memory itself
    stored.read()
    assert_same_bits(stored.room, stored.rows)


@linux
@pytest.mark.parametrize("forgotten", [True, False])
def test_tiers_past_the_page_cache_are_left_out_where_the_system_keeps_the_file(
    monkeypatch, tmp_path, forgotten
):
    monkeypatch.setattr(Stored, "forget", lambda self: forgotten)
    model = tiny("float32")
    rows = tiers(model, 6, repeats=1, folder=tmp_path)
    names = [row["tier"] for row in rows]
    assert names[0] == MEMORY
    assert [name for name in names if name in PAST] == (PAST if forgotten else [])
    for row in rows:
        assert row["bytes"] == 6 * model.config.kv_bytes_per_token("float32")
        assert row["ratio"] == row["project_seconds"] / row["seconds"]
    assert list(tmp_path.iterdir()) == []  # nothing is left behind

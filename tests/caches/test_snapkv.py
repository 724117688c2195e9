"""SnapKV: a compressed prompt, and everything that follows it."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits
from feeding import EXACT, TEXT, feed

from minikv.caches import SnapKV
from minikv.errors import CacheError


def test_what_is_generated_is_kept():
    cache = SnapKV(EXACT.weights, budget=6, window=2)
    feed(EXACT, cache, TEXT[:15])
    assert cache.stored == 6
    feed(EXACT, cache, TEXT[15:], *[1] * 8)
    assert cache.stored == 6 + 9
    assert_same_bits(cache.rows[1].positions[-11:, 0], np.arange(13, 24))


def test_it_watches_by_half_the_budget_or_32():
    assert [SnapKV(EXACT.weights, budget=b).window for b in (1, 6, 100)] == [1, 3, 32]


def test_a_prompt_shorter_than_the_budget_is_compressed_neither_then_nor_later():
    for prompt in range(1, 7):
        cache = SnapKV(EXACT.weights, budget=6, window=2)
        feed(EXACT, cache, TEXT, prompt)
        assert cache.stored == len(TEXT)


def test_all_of_the_budget_may_be_the_window_and_no_more():
    cache = SnapKV(EXACT.weights, budget=4, window=4)
    feed(EXACT, cache, TEXT)
    assert_same_bits(cache.rows[1].positions[:, 1], np.arange(20, 24))
    with pytest.raises(CacheError, match="window is 5, expected at most the budget of 4"):
        SnapKV(EXACT.weights, budget=4, window=5)

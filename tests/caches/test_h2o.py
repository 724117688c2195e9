"""H2O: how its budget is split."""

from __future__ import annotations

import pytest
from feeding import EXACT, TEXT, feed

from minikv.errors import CacheError


def test_the_budget_is_split_in_halves():
    assert [EXACT.new_cache("h2o", budget=b).recent for b in (1, 6, 7)] == [0, 3, 3]


def test_all_of_the_budget_may_be_the_newest_and_no_more():
    cache = EXACT.new_cache("h2o", budget=4, recent=4)
    feed(EXACT, cache, TEXT, 9, 1)
    assert cache.rows[0].positions.tolist() == [[position] * 2 for position in range(20, 24)]
    with pytest.raises(CacheError, match="recent is 5, expected at most the budget of 4"):
        EXACT.new_cache("h2o", budget=4, recent=5)
    for recent in (-1, 1.5):
        with pytest.raises(CacheError, match=f"recent is {recent}, expected a whole number"):
            EXACT.new_cache("h2o", budget=4, recent=recent)

"""H2O: how its budget is split."""

from __future__ import annotations

from feeding import EXACT


def test_the_budget_is_split_in_halves():
    assert [EXACT.new_cache("h2o", budget=b).recent for b in (1, 6, 7)] == [0, 3, 3]

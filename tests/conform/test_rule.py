"""The rule: what is measured, and where the limits lie."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minikv.conform import rule
from tests.conform.evidence import FIGURES


def test_a_difference_is_a_share_of_the_rows_own_spread():
    rows = np.array([[0.0, 2.0], [0.0, 200.0]])
    moved = rows + np.array([0.5, -0.5])
    assert np.allclose(rule.row_differences(rows, moved), [0.5, 0.005], rtol=2**-50)


def test_a_difference_is_a_root_mean_square_and_its_measure_a_standard_deviation():
    row = np.array([[0.0, 0.0, 0.0, 4.0]])  # whose standard deviation is the root of 3
    moved = row + np.array([3.0, 0.0, 0.0, 0.0])  # by 1.5, root mean square
    assert np.allclose(rule.row_differences(row, moved), 1.5 / 3**0.5, rtol=2**-50)


def test_what_is_not_finite_differs_infinitely():
    rows = np.array([[1.0, 2.0]])
    for wrong in (np.nan, np.inf):
        assert rule.row_differences(rows, np.array([[1.0, wrong]]))[0] == np.inf
    assert rule.row_differences(rows, rows)[0] == 0


def test_the_twins_limit_grows_with_its_spread_up_to_a_cap_and_with_a_shift():
    assert rule.twin_limit(0.0) == rule.TWIN
    assert rule.twin_limit(1e-15) == rule.TWIN
    assert rule.twin_limit(5e-7) == pytest.approx(3.2e-5)
    assert rule.twin_limit(1.0) == rule.TWIN_SPREADS * rule.TWIN < 2.6e-4  # the smallest fault
    assert rule.twin_limit(0.0, shift=1000) == pytest.approx(4 * 1000 * 2**-24)


def test_without_a_twin_16_bits_have_no_power_and_call_nothing_a_bug():
    for dtype in ("float16", "bfloat16"):
        bounds = rule.bounds_of_spread(np.zeros(5), rule.UNITS[dtype])
        assert bounds.bug > 1  # more than a row
    assert rule.bounds_of_spread(np.zeros(5), rule.UNITS["float32"]).has_power.all()
    assert not rule.bounds_of_spread(np.zeros(5), rule.UNITS["bfloat16"]).has_power.any()


def test_a_row_with_massive_activations_does_not_widen_the_others_bounds():
    spread = np.array([1e-3, 1e-7, 1e-7, 1e-7])
    bounds = rule.bounds_of_spread(spread, rule.UNITS["float32"])
    assert bounds.rounding[0] == pytest.approx(6e-3)
    assert bounds.rounding[1] < 1e-6
    assert bounds.bug == pytest.approx(6e-3)


def test_a_near_tie_has_a_margin_below_the_difference_and_other_changes_are_none():
    before = np.array([[1.0, 1.0 - 1e-7, 0.0], [1.0, 0.0, 0.0]])
    after = np.array([[1.0 - 1e-7, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert rule.near_ties(before, after) == 2  # both differences are above their margins
    assert rule.near_ties(before, before) == 0
    far = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    moved = far.copy()
    moved[0, 0] = 1e-3
    assert rule.near_ties(far, moved) == 0


def test_sixteen_bits_may_differ_by_less_in_their_errors_and_by_more_than_clean_models_do():
    """The figures are of clean decoders, real weights among them: ``tests.conform.evidence``."""
    counts = json.loads(FIGURES.read_text(encoding="utf-8"))
    seen: dict[str, float] = {}
    for run in counts.values():
        if "ratio of errors" in run:
            dtype = run["dtype"].split(",")[0]
            seen[dtype] = max(run["ratio of errors"], seen.get(dtype, 0.0))
    assert set(seen) == {"float32", "bfloat16", "float16"}
    for dtype, ratio in seen.items():
        assert 1 < ratio < 0.75 * rule.error_ratio(rule.UNITS[dtype]), dtype
    assert rule.error_ratio(rule.UNITS["bfloat16"]) < rule.error_ratio(rule.UNITS["float32"])

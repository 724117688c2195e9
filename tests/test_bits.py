"""What exact claims rest on, in tests and in theorems, sees each way in which arrays can differ."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
from bits import assert_same_bits, same_bits

from minikv.verify import bits as library

NAN = np.float32(np.nan)
OTHER_NAN = (np.array(NAN).view(np.uint32) ^ np.uint32(1)).view(np.float32)
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (ROWS, ROWS.copy()),
        (np.asfortranarray(ROWS), ROWS),
        (ROWS[:, ::2], ROWS[:, ::2].copy()),
        (np.float64(-0.0), np.float64(-0.0)),
        ([NAN, 1.0], [NAN, 1.0]),
        (np.empty((0, 3)), np.empty((0, 3))),
        (np.array([True]), np.array([True])),
        (array_api_strict.asarray(ROWS), ROWS),
    ],
)
def test_the_same_bits_are_the_same(got, expected):
    assert_same_bits(got, expected)
    assert same_bits(got, expected)
    library.assert_same_bits(got, expected, "result")
    assert library.same_bits(got, expected)


@pytest.mark.parametrize(
    ("got", "expected", "said"),
    [
        (ROWS, ROWS[:1], "shape (2, 3), expected (1, 3)"),
        (ROWS, ROWS.T, "shape (2, 3), expected (3, 2)"),
        (ROWS, ROWS[0, 0], "shape (2, 3), expected ()"),
        (ROWS, ROWS.astype(np.float64), "float32, expected float64"),
        (ROWS, ROWS.view(np.uint32), "float32, expected uint32"),
        (np.float32(0.0), np.float32(-0.0), "np.float32(0.0) at [], expected np.float32(-0.0)"),
        (NAN, OTHER_NAN, "at [], expected np.float32(nan)"),
        (ROWS, np.nextafter(ROWS, np.float32(9)), "np.float32(0.0) at [0, 0], expected"),
        ([[1, 2]], [[1, 3]], "np.int64(2) at [0, 1], expected np.int64(3)"),
    ],
)
def test_what_differs_is_said(got, expected, said):
    with pytest.raises(AssertionError) as caught:
        assert_same_bits(got, expected, "logits")
    assert str(caught.value).startswith("logits: ")
    assert said in str(caught.value)
    assert not same_bits(got, expected)
    with pytest.raises(library.Refuted, match=r"^logits: "):
        library.assert_same_bits(got, expected, "logits")
    assert not library.same_bits(got, expected)


def test_a_refutation_says_what_was_found_and_then_what_was_expected():
    with pytest.raises(library.Refuted) as caught:
        library.assert_same_bits(np.float32([1, 2]), np.float32([1, 3]), "logits")
    said = "logits: 1 of 2 numbers differ, first at (1,): np.float32(2.0), not np.float32(3.0)"
    assert str(caught.value) == said
    assert library.difference(ROWS, ROWS[:1]) == "float32 (2, 3) against float32 (1, 3)"

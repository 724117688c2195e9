"""The one way in which tests compare arrays exactly: shape, type and every bit."""

from __future__ import annotations

from typing import Any

import numpy as np


def difference(got: Any, expected: Any) -> str:
    """Where two arrays differ first, in one line; empty if they hold the same bits.

    Bits, not values: 0.0 is not -0.0, and one NaN is another only if all of its bits are.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return f"shape {got.shape}, expected {expected.shape}"
    if got.dtype != expected.dtype:
        return f"{got.dtype}, expected {expected.dtype}"
    differ = np.argwhere(_bytes(got) != _bytes(expected))
    if not len(differ):
        return ""
    index = tuple(int(i) for i in differ[0][:-1])
    return f"{got[index]!r} at {list(index)}, expected {expected[index]!r}"


def same_bits(got: Any, expected: Any) -> bool:
    """Whether two arrays hold the same bits. For controls, which need them to differ."""
    return not difference(got, expected)


def assert_same_bits(got: Any, expected: Any, what: str = "result") -> None:
    """Fail unless two arrays hold the same bits, and say where they do not."""
    found = difference(got, expected)
    assert not found, f"{what}: {found}"


def _bytes(array: np.ndarray) -> np.ndarray:
    """``(...) -> (..., itemsize)``: the bytes of each element."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).reshape(*array.shape, array.itemsize)

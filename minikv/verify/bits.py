"""How the theorems compare: shape, type and every bit.

>>> import numpy as np
>>> zero = np.zeros(1, np.float32)
>>> same_bits(zero, zero), same_bits(zero, -zero)
(True, False)
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array, to_numpy


class Refuted(AssertionError):
    """A theorem does not hold for a case; the message says where."""


def difference(got: Array, expected: Array) -> str:
    """Where two arrays differ, in one line; empty if they hold the same bits.

    Bits, not values: 0.0 is not -0.0, and one NaN is another only if all of its bits are.
    """
    a, b = (np.ascontiguousarray(to_numpy(array)) for array in (got, expected))
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype} {a.shape} against {b.dtype} {b.shape}"
    bits = np.dtype(f"u{a.dtype.itemsize}")
    places = np.argwhere(a.view(bits) != b.view(bits))
    if not len(places):
        return ""
    first = tuple(int(index) for index in places[0])
    differing = f"{len(places)} of {a.size} numbers differ"
    return f"{differing}, first at {first}: {a[first]!r}, not {b[first]!r}"


def same_bits(got: Array, expected: Array) -> bool:
    """Whether two arrays hold the same bits."""
    return not difference(got, expected)


def assert_same_bits(got: Array, expected: Array, what: str) -> None:
    """Raise `Refuted` unless two arrays hold the same bits, and say where they do not."""
    found = difference(got, expected)
    if found:
        raise Refuted(f"{what}: {found}")


def differ(got: Array, expected: Array) -> bool:
    """Whether two arrays do not hold the same numbers: what a control looks for."""
    return not np.array_equal(to_numpy(got), to_numpy(expected))

"""Ways to cut a text into calls."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

SIZES = (7, 31, 32, 33, 64)


def by(length: int, size: int) -> list[int]:
    """Equal chunks, and what is left.

    Examples
    --------
    >>> by(10, 4)
    [4, 4, 2]
    """
    left = length % size
    return [size] * (length // size) + [left] * bool(left)


def beginning(length: int, *first: int) -> list[int]:
    """These chunks, as far as the text goes, and then the rest in one.

    Examples
    --------
    >>> beginning(10, 5, 1, 1), beginning(4, 3, 3)
    ([5, 1, 1, 3], [3, 1])
    """
    inside = [size for size, end in zip(first, accumulate(first), strict=True) if end <= length]
    left = length - sum(inside)
    return inside + [left] * bool(left)


def schedules(length: int, random: np.random.Generator, quick: bool) -> dict[str, list[int]]:
    """Named ways to cut a text of `length` tokens."""
    half = length // 2
    found = {
        "one by one": beginning(length, *[1] * 36),
        "all at once": [length],
        "half, then one by one": beginning(length, half, *[1] * 8),
        "two halves": beginning(length, half),
    }
    found |= {f"by {size}": by(length, size) for size in SIZES if size < length}
    if not quick:
        cuts = sorted({0, length, *map(int, random.integers(1, max(length, 2), 5))})
        found["random"] = [int(size) for size in np.diff(cuts)]
        found["5, then one by one"] = beginning(length, 5, *[1] * 12)
        found["by 2"] = beginning(length, *[2] * 12)
    return found

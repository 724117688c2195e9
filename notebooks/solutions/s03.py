"""Solutions of chapter 3, floating point."""

from __future__ import annotations

import hashlib
import math

import numpy as np


def three_numbers() -> tuple[float, float, float]:
    """1 - 1 leaves 2**-30, but -1 + 2**-30 is nearest to -1 itself."""
    return 1.0, -1.0, 2.0**-30


def is_safe(x: list[int], w: list[int]) -> bool:
    """Absolute values, in Python's integers."""
    return sum(abs(a * b) for a, b in zip(x, w, strict=True)) <= 2**53


def kahan(terms: list[float]) -> float:
    """`lost` is what the last addition rounded away."""
    total, lost = 0.0, 0.0
    for term in terms:
        whole = term + lost
        new = total + whole
        lost = whole - (new - total)
        total = new
    return total


def grid(x: list[float], bits: int) -> float:
    """Start with the bound that ignores rounding, and coarsen while it does not fit."""
    bound = math.fsum(map(abs, x)) / 2.0**bits  # fsum rounds once: the order does not matter
    g = 2.0 ** (math.frexp(bound)[1] - 1)
    while sum(abs(round(value / g)) for value in x) > 2**bits:
        g *= 2
    return g


def digest(array: np.ndarray) -> str:
    """tobytes writes row by row, whatever the layout in memory."""
    return hashlib.sha256(np.asarray(array).astype("<f4").tobytes()).hexdigest()

"""Keys and values in few bits: what is stored, how far it may be off, and what that does.

Rounding is to ``2**bits`` levels between the least and the largest number of a row (a token and a
head) or of a column (a channel over the tokens of a call). What is stored is moved to attention's
grid once more (`Arithmetic.settle`), as all keys and values are.
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import NewKeys, NewValues, Positions, Stream, to_numpy
from ..layers import Layer
from ..memory import Attended
from ..verify.memories import Wrapped

FULL_BITS = 16  # and more: kept as it is


def rounded(x: np.ndarray, bits: int, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """`x` on ``2**bits`` levels along an axis, float64, and the distance between two levels.

    Examples
    --------
    >>> values, step = rounded(np.array([[0.0, 0.4, 3.0]]), 2)
    >>> values.tolist(), step.tolist()
    ([[0.0, 0.0, 3.0]], [[1.0]])
    """
    wide = x.astype(np.float64)
    low = wide.min(axis=axis, keepdims=True)
    high = wide.max(axis=axis, keepdims=True)
    step = (high - low) / (2**bits - 1)
    safe = np.where(step > 0, step, 1.0)
    return np.rint((wide - low) / safe) * step + low, step


def stored(x: NewKeys, bits: int, layer: Layer, axis: int = -1) -> np.ndarray:
    """What a cache of so many bits gives back of K or V, ``(T, G, d)`` in the model's dtype."""
    rows = to_numpy(x)
    if bits >= FULL_BITS or not rows.size:
        return rows
    values, _ = rounded(rows, bits, axis)
    return to_numpy(layer.arithmetic.settle(values.astype(rows.dtype)))


def excess(x: np.ndarray, back: np.ndarray, bits: int, axis: int = -1) -> float:
    """The largest distance of what was stored, in units of its bound.

    The bound is half a step, and ``2**-23`` of the row's largest number for two roundings to 24
    bits: to float32, and to attention's grid.
    """
    _, step = rounded(x, bits, axis)
    size = np.abs(x).max(axis=-1, keepdims=True).astype(np.float64)
    bound = step / 2 + 2.0**-23 * np.maximum(size, np.abs(back).max(axis=-1, keepdims=True))
    return float((np.abs(back.astype(np.float64) - x) / np.maximum(bound, 1e-300)).max())


class Quantised(Wrapped):
    """A cache whose keys and values are rounded where they are made, their own token's too.

    So every path sees the same numbers, and calls of any sizes give the same bits.
    """

    def bits(self, layer: Layer, positions: Positions) -> tuple[int, int]:
        """Of keys and of values, for the tokens of a call at a layer."""
        raise NotImplementedError

    def kept(
        self, layer: Layer, positions: Positions, k: NewKeys, v: NewValues
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is stored of these rows."""
        key_bits, value_bits = self.bits(layer, positions)
        return stored(k, key_bits, layer), stored(v, value_bits, layer)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        keys, values = self.kept(layer, positions, k, v)
        return super().update(layer, positions, residual, keys, values)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def distortion(
    scores: tuple[np.ndarray, np.ndarray], values: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """How far a head's output moves, and by how much at most; ``(S,)`` twice, ``(S, d)`` twice.

    Scores whose moves spread by 2 delta, and values that move by eta at most, move the output by
    ``2 tanh(delta / 2) max|v| + eta``: the weights of the keys move by ``2 tanh(delta / 2)`` in
    all, whatever is added to all scores alike. 1e-12 max|v| allows for float64.
    """
    old, new = scores
    v, moved_v = values
    moves = new - old
    delta = float(moves.max() - moves.min()) / 2
    eta = float(np.linalg.norm(moved_v - v, axis=-1).max())
    longest = float(np.linalg.norm(v, axis=-1).max())
    bound = 2 * math.tanh(delta / 2) * longest + eta + 1e-12 * longest
    moved = float(np.linalg.norm(softmax(old) @ v - softmax(new) @ moved_v))
    return moved, bound

"""Keys and values in few bits: what is stored, how far it may be off, and what that does.

Rounding is to ``2**bits`` levels between the least and the largest number of a row (a token and a
head) or of a column (a channel over the tokens of a call). What is stored is moved to attention's
grid once more (`Arithmetic.settle`), as all keys and values are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from ..arrays import Array, NewKeys, NewValues, Positions, Stream, to_numpy
from ..caches import Cache
from ..layers import Layer
from ..memory import Attended
from ..verify.memories import Wrapped

FULL_BITS = 16  # and more: kept as it is
GROUP = 32  # tokens of which each channel is rounded for itself
RANGE = 8  # bytes of the least number and the step of what is rounded together, in float32


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
    return on_grid(values, rows, layer)


def on_grid(values: np.ndarray, like: NewKeys, layer: Layer) -> np.ndarray:
    """Float64 numbers as attention reads them, in the dtype of K or V."""
    return to_numpy(layer.arithmetic.settle(values.astype(to_numpy(like).dtype)))


def packed_bytes(x: NewKeys, bits: float, axis: int = -1) -> float:
    """What `stored` would take in so many bits a number, with the range of each row or column.

    Examples
    --------
    >>> packed_bytes(np.zeros((2, 3, 64), dtype=np.float32), 4)  # six rows, 32 bytes and a range
    240.0
    """
    if bits >= FULL_BITS:
        return float(x.nbytes)
    return x.size * bits / 8 + RANGE * x.size / x.shape[axis]


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

    Attributes
    ----------
    packed : float
        Bytes that the rounded rows would take; here they lie in the model's dtype.
    """

    def __init__(self, inner: Cache) -> None:
        super().__init__(inner)
        self.packed = 0.0

    @property
    def seen(self) -> int:
        """Tokens of the sequence."""
        return self.inner.seen

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in their few bits."""
        return round(self.packed)

    def fork(self) -> Self:
        """An independent copy."""
        other = copy.copy(self)
        other.inner = self.inner.fork()
        return other

    def bits(self, layer: Layer, positions: Positions) -> tuple[int, int]:
        """Of keys and of values, for the tokens of a call at a layer."""
        raise NotImplementedError

    def few(self, x: NewKeys, bits: int, layer: Layer, axis: int = -1) -> np.ndarray:
        """`stored`, and its bytes are counted."""
        self.packed += packed_bytes(to_numpy(x), bits, axis)
        return stored(x, bits, layer, axis)

    def kept(
        self, layer: Layer, positions: Positions, k: NewKeys, v: NewValues
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is stored of these rows."""
        key_bits, value_bits = self.bits(layer, positions)
        return self.few(k, key_bits, layer), self.few(v, value_bits, layer)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        keys, values = self.kept(layer, positions, k, v)
        return super().update(layer, positions, residual, keys, values)


class ByGroup(Quantised):
    """A cache that rounds tokens by groups of `GROUP`, once a group is there; the rest is whole.

    A call attends to its own rows as they are made, and to those of earlier calls as they are
    kept, so that other calls are other numbers.
    """

    def __init__(self, inner: Cache) -> None:
        super().__init__(inner)
        self.groups: Mapping[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the groups in their few bits, and of what is in none."""
        grouped = len(self.groups[0][0]) if self.groups else 0
        whole = self.inner.nbytes * (self.seen - grouped) // max(1, self.seen)
        return round(self.packed) + whole

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        attended, keys, values = self.inner.update(layer, positions, residual, k, v)
        whole = (to_numpy(keys), to_numpy(values))
        before = (len(attended) - len(positions)) // GROUP * GROUP
        parts = [self.groups.get(layer.index, (whole[0][:0], whole[1][:0]))]
        for start in range(len(parts[0][0]), before, GROUP):
            rows = slice(start, start + GROUP)
            parts.append(self.kept(layer, attended[rows], whole[0][rows], whole[1][rows]))
        coarse_k, coarse_v = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.groups = {**self.groups, layer.index: (coarse_k, coarse_v)}
        return (
            attended,
            np.concatenate([coarse_k, whole[0][before:]]),
            np.concatenate([coarse_v, whole[1][before:]]),
        )


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


def head_moves(
    activations: Mapping[str, Array], memory: Quantised, ids: Sequence[int]
) -> np.ndarray:
    """How far each head of the last token moves if the cache of the others is rounded.

    Each layer by itself: its queries, keys and values are those of the full cache.

    Parameters
    ----------
    activations : mapping
        Of the text, as `Model.run_with_cache` returns them.
    memory : Quantised
        Empty.
    ids : sequence of int
        The text.

    Returns
    -------
    numpy.ndarray
        ``(L, H, 3)``: how far the output moves, its bound (`distortion`), and how long it is.
    """
    layers = memory.weights.layers
    names = ("hook_resid_pre", "attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_v")
    last = len(ids) - 1
    found = []
    for rows in (slice(0, last), slice(last, last + 1)):
        _, positions = memory.begin(np.array(ids)[rows])
        for layer in layers:
            stream, q, k, v = (
                to_numpy(activations[f"blocks.{layer.index}.{name}"]) for name in names
            )
            read = memory.update(layer, positions, stream[rows], k[rows], v[rows])
            if rows.start == last:
                found.append(_moves(q[-1] * layer.config.attention_scale, (k, v), read[1:]))
        memory.advance(len(positions))
    return np.array(found)


def _moves(
    q: np.ndarray, whole: tuple[np.ndarray, ...], coarse: tuple[np.ndarray, ...]
) -> list[tuple[float, float, float]]:
    """A layer's part of `head_moves`: queries ``(H, d)``, and K and V twice."""
    found = []
    share = len(q) // whole[0].shape[1]
    for head, asked in enumerate(q.astype(np.float64)):
        k, v, k2, v2 = (x[:, head // share].astype(np.float64) for x in (*whole, *coarse))
        scores = (k @ asked, k2 @ asked)
        length = float(np.linalg.norm(softmax(scores[0]) @ v))
        found.append((*distortion(scores, (v, v2)), length))
    return found

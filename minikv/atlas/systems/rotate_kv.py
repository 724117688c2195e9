"""RotateKV: heads are rotated before they are rounded, so that no channel stands out.

Su et al. 2025, arXiv 2501.16383. *Rule.* A fast Walsh-Hadamard transform, after channels are put in
an order, turns the keys of a group of heads before they are turned by their positions; what is
rounded and kept is that. Attention turns it back and then by its position. Some tokens that get
much attention, 20 in the code, stay as they are.

*Departures.* One head at a time, no order of channels; the first `SINKS` tokens stand for those
that get much attention; values are rounded as they are, where the code turns them by its weights.

*Its authors claim* 2 bits at less than 0.3 of perplexity. *Here:* turning both keeps all scores: in
the reals, and in bits where the numbers are whole and the transform's scale is a power of two. It
does not commute with the rotation by positions, which is why keys are kept without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, to_numpy
from ...caches import Cache
from ...errors import InputError
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, other, same, true
from ..quantising import FULL_BITS, Quantised, on_grid, packed_bytes, rounded, stored
from .tri_attention import turned

SINKS = 1
WIDTH = 16  # a power of four: the transform's scale, 1 / 4, is exact
ROUNDING = 1e-12


def hadamard(x: np.ndarray) -> np.ndarray:
    """The orthogonal Walsh-Hadamard transform of the last axis, whose length is a power of two.

    Examples
    --------
    >>> hadamard(np.array([4.0, 0.0, 0.0, 0.0])).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    length = x.shape[-1]
    if length & (length - 1):
        raise InputError(
            f"heads are {length} wide, expected a power of two, as the transform needs"
        )
    out = x.astype(np.float64)
    step = 1
    while step < length:
        pairs = out.reshape(*x.shape[:-1], -1, 2, step)
        first = pairs[..., 0, :]
        second = pairs[..., 1, :]
        out = np.stack([first + second, first - second], axis=-2).reshape(x.shape)
        step *= 2
    return out / np.sqrt(length)


class Turned(Quantised):
    """Keys that are turned before their positions, and rounded; and values that are rounded."""

    def __init__(self, inner: Cache, few_bits: int) -> None:
        super().__init__(inner)
        self.few_bits = few_bits

    def kept(
        self, layer: Layer, positions: Positions, k: NewKeys, v: NewValues
    ) -> tuple[np.ndarray, np.ndarray]:
        sink = positions < SINKS
        for rows in (to_numpy(k), to_numpy(v)):
            self.packed += packed_bytes(rows[sink], FULL_BITS)
            self.packed += packed_bytes(rows[~sink], self.few_bits)
        keys = k
        if self.few_bits < FULL_BITS:
            cos, sin = (to_numpy(part, dtype=np.float64) for part in layer.rotary(positions))
            plain = by_position(to_numpy(k, dtype=np.float64), cos, -sin)
            back, _ = rounded(hadamard(plain), self.few_bits)
            keys = on_grid(by_position(hadamard(back), cos, sin), k, layer)
        values = stored(v, self.few_bits, layer)
        sinks = sink[:, None, None]
        return np.where(sinks, to_numpy(k), to_numpy(keys)), np.where(sinks, to_numpy(v), values)


def by_position(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Heads turned as `Rotary` says, whose sines are signed; ``(T, G, d)``, ``(T, 1, d)``."""
    half = x.shape[-1] // 2
    return x * cos + np.roll(x, half, axis=-1) * sin


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    rng = np.random.default_rng(0)
    whole = rng.integers(-9, 10, size=(2, 5, WIDTH)).astype(np.float64)
    q, k = whole
    x, y = rng.normal(size=(2, 5, WIDTH))
    angles = np.arange(5.0)[:, None] * 2.0 ** -np.arange(WIDTH / 2)
    before = turned(hadamard(x), angles)
    after = hadamard(turned(x, angles))
    outlier = x.copy()
    outlier[:, 3] *= 50
    _, step = rounded(outlier, 2)
    back, turned_step = rounded(hadamard(outlier), 2)
    off = (np.abs(back - hadamard(outlier)) / turned_step).max()
    moved = np.abs(hadamard(x) @ hadamard(y).T - x @ y.T).max()
    return [
        same("whole numbers: scores of turned rows", hadamard(q) @ hadamard(k).T, q @ k.T),
        at_most("any numbers: scores moved", moved, ROUNDING),
        same("twice is the identity, for whole numbers", hadamard(hadamard(k)), k),
        other("turned and not", hadamard(k), k),
        above("turned before and after the positions", np.abs(before - after).max(), 0.1),
        at_most("a turned number in 2 bits is off by half a step", off, 0.5 + ROUNDING),
        true("an outlier's step shrinks", bool((turned_step < step).all()), f"{step.max():.3g}"),
    ]


ENTRY = Entry(
    name="rotate_kv",
    title="RotateKV",
    arxiv="2501.16383",
    kind=Kind.QUANTISING,
    state="the rounded, turned rows",
    verdict=Exactness.BOUNDED,
    reason="Turning keys and queries keeps all scores and does not commute with RoPE; what is "
    "rounded is off by half a step.",
    read="abstract, and the authors' code: its attention",
    cure="recompute keys and values from residuals: T1",
    theorems=("T1",),
    counterexamples=("quantised_cache",),
    caches={
        "4 bits": lambda model: Turned(model.new_cache("full"), 4),
        "2 bits": lambda model: Turned(model.new_cache("full"), 2),
    },
    demonstrate=demonstrate,
)

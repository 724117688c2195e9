"""RotateKV: heads are rotated before they are rounded, so that no channel stands out.

Su et al. 2025, arXiv 2501.16383. *Rule.* A fast Walsh-Hadamard transform, after channels are put in
an order, turns each head's keys and queries alike, before the rotation by positions; what is
rounded is the turned key. Sinks stay as they are.

*Departures.* One head, no order of channels, no sinks.

*Its authors claim* 2 bits at less than 0.3 of perplexity. *Here:* turning both keeps all scores: in
the reals, and in bits where the numbers are whole and the transform's scale is a power of two. It
does not commute with the rotation by positions, which is why it comes before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, other, same, true
from ..quantising import rounded
from .tri_attention import turned

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
    out = x.astype(np.float64)
    step = 1
    while step < length:
        pairs = out.reshape(*x.shape[:-1], -1, 2, step)
        first = pairs[..., 0, :]
        second = pairs[..., 1, :]
        out = np.stack([first + second, first - second], axis=-2).reshape(x.shape)
        step *= 2
    return out / np.sqrt(length)


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
    cure="recompute keys and values from residuals: T1",
    theorems=("T1",),
    counterexamples=("quantised_cache",),
    demonstrate=demonstrate,
)

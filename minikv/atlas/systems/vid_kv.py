"""VidKV: keys channel by channel in two bits or one, values in three levels.

Tao et al. 2025, arXiv 2503.16257, of models that see films. *Rule.* Tokens go in groups. Key
channels of a wide range get 2 bits, each channel of a group for itself; the others of a token are
taken to frequencies, and of each frequency a group keeps one mean size, and a sign a token. Of
values a channel of a group keeps one mean size, and -1, 0 or 1 a token: 0 below half of it.

*Departures.* No film, and so no token that stands out and gets 2 bits; channels are of all heads
together; the transform is orthogonal. Half of the channels are wide, as 1.5 bits ask.

*Its authors claim* 1.5 and 1.58 bits with almost no loss. *Here:* the transform comes back to
rounding, and moves nothing further than its frequencies were moved; a number in three levels or two
is off by no more than half a level, or by what it sticks out; the full cache's bits are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, to_numpy
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, other
from ..ground import kv, small_model, text
from ..quantising import ByGroup, on_grid, packed_bytes, rounded

ROUNDING = 1e-12  # a transform of 14 numbers near 1 in float64
WIDE = 0.5  # share of the key channels


def one_bit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plus or minus the mean size of each column; and that size."""
    size = np.abs(x).mean(axis=0, keepdims=True)
    return np.where(x >= 0, size, -size), size


def ternary(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-1, 0 or 1 times the mean size of each column, 0 below half of it; and that size."""
    size = np.abs(x).mean(axis=0, keepdims=True)
    return np.where(np.abs(x) > size / 2, np.sign(x) * size, 0.0), size


def furthest(x: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How far `ternary` may be off: half of the size, or what a number sticks out of it."""
    return np.maximum(size / 2, np.abs(x) - size)


def spectrum(x: np.ndarray) -> np.ndarray:
    """Real and imaginary parts of a row's frequencies, side by side; ``(T, d) -> (T, 2 d)``."""
    found = np.fft.fft(x, axis=-1, norm="ortho")
    return np.concatenate([found.real, found.imag], axis=-1)


def from_spectrum(parts: np.ndarray) -> np.ndarray:
    """Rows from their frequencies, ``(T, 2 d) -> (T, d)``."""
    real, imaginary = np.split(parts, 2, axis=-1)
    return np.fft.ifft(real + 1j * imaginary, axis=-1, norm="ortho").real


def coarse_keys(x: np.ndarray) -> np.ndarray:
    """Keys of a group, ``(T, channels)``: the widest channels in 2 bits, frequencies in 1."""
    order = np.argsort(-(x.max(axis=0) - x.min(axis=0)), kind="stable")
    wide, narrow = np.split(order, [round(WIDE * len(order))])
    back = np.empty_like(x)
    back[:, wide] = rounded(x[:, wide], 2, axis=0)[0]
    back[:, narrow] = from_spectrum(one_bit(spectrum(x[:, narrow]))[0])
    return back


class ByChannel(ByGroup):
    """Groups of tokens, whose channels are rounded each for itself."""

    def kept(
        self, layer: Layer, positions: Positions, k: NewKeys, v: NewValues
    ) -> tuple[np.ndarray, np.ndarray]:
        flat_k, flat_v = (to_numpy(x, dtype=np.float64).reshape(len(x), -1) for x in (k, v))
        keys = coarse_keys(flat_k).reshape(k.shape)
        values = ternary(flat_v)[0].reshape(v.shape)
        self.packed += packed_bytes(flat_k, 2 * WIDE + 2 * (1 - WIDE), axis=0)
        self.packed += packed_bytes(flat_v, np.log2(3), axis=0)
        return on_grid(keys, k, layer), on_grid(values, v, layer)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    keys, values = (rows[0][:, 0].astype(np.float64) for rows in kv(small_model(), text()))
    there = spectrum(keys)
    coarse, _ = one_bit(there)
    moved = np.linalg.norm(from_spectrum(coarse) - keys) / np.linalg.norm(coarse - there)
    wide = np.argsort(-(keys.max(axis=0) - keys.min(axis=0)))[:2]
    two_bits, step = rounded(keys[:, wide], 2, axis=0)
    three, size = ternary(values)
    off = (np.abs(three - values) / furthest(values, size)).max()
    return [
        at_most("there and back", np.abs(from_spectrum(there) - keys).max(), ROUNDING),
        at_most("keys move no further than their frequencies", float(moved), 1 + ROUNDING),
        at_most(
            "2 bits a wide channel", (np.abs(two_bits - keys[:, wide]) / step).max(), 0.5 + ROUNDING
        ),
        at_most("values in three levels, beside the bound", off, 1 + ROUNDING),
        above("half of the size does not bound it", (np.abs(three - values) / size).max(), 0.5),
        other("values in three levels, beside the full cache", three, values),
    ]


ENTRY = Entry(
    name="vid_kv",
    title="VidKV",
    arxiv="2503.16257",
    kind=Kind.QUANTISING,
    state="the rounded rows",
    verdict=Exactness.BOUNDED,
    reason="A wide channel is off by half a step, other keys by as much as their frequencies, "
    "values by half their size or by what they stick out; no bits survive. Text in place of films.",
    read="abstract, and the authors' code: its cache and its rounding",
    cure="recompute keys and values from residuals: T1",
    theorems=("T1",),
    counterexamples=("quantised_cache",),
    caches={"1.5 and 1.58 bits": lambda model: ByChannel(model.new_cache("full"))},
    demonstrate=demonstrate,
)

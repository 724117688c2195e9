"""VidKV: keys channel by channel in two bits or one, values in three levels.

arXiv 2503.16257, of models that see films. *Rule.* Key channels of a wide range get 2 bits; the
others are taken to frequencies along the tokens and get 1 bit there; values get the levels -1, 0
and 1 times a scale for each channel.

*Departures.* Real and imaginary parts of a frequency have a bit each; the transform is orthogonal;
no film.

*Its authors claim* 1.5 and 1.58 bits with almost no loss. *Here:* the transform comes back to
rounding, and moves nothing further than its frequencies were moved; a value in three levels is off
by half a step; the full cache's bits are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, other
from ..ground import kv, small_model, text
from ..quantising import rounded

ROUNDING = 1e-12  # a transform of 14 numbers near 1 in float64


def ternary(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each channel (the last axis) to -1, 0 or 1 times its scale; and the distance of levels."""
    scale = np.abs(x).max(axis=0, keepdims=True)
    safe = np.where(scale > 0, scale, 1.0)
    return np.rint(x / safe) * scale, scale


def one_bit_frequencies(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens to frequencies, rounded to one bit and back; with the frequencies before and after."""
    spectrum = np.fft.fft(x, axis=0, norm="ortho")
    real, _ = rounded(spectrum.real, 1, axis=0)
    imaginary, _ = rounded(spectrum.imag, 1, axis=0)
    coarse = real + 1j * imaginary
    return np.fft.ifft(coarse, axis=0, norm="ortho"), spectrum, coarse


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    keys, values = (rows[0][:, 0].astype(np.float64) for rows in kv(small_model(), text()))
    back = np.fft.ifft(np.fft.fft(keys, axis=0, norm="ortho"), axis=0, norm="ortho").real
    wide = np.argsort(-(keys.max(axis=0) - keys.min(axis=0)))[:2]
    two_bits, step = rounded(keys[:, wide], 2, axis=0)
    narrow = np.delete(keys, wide, axis=1)
    one_bit, spectrum, coarse = one_bit_frequencies(narrow)
    three, scale = ternary(values)
    parseval = abs(np.linalg.norm(one_bit - narrow) - np.linalg.norm(coarse - spectrum))
    return [
        at_most("there and back", np.abs(back - keys).max(), ROUNDING),
        at_most("keys move as far as their frequencies", float(parseval), ROUNDING),
        at_most(
            "2 bits a wide channel", (np.abs(two_bits - keys[:, wide]) / step).max(), 0.5 + ROUNDING
        ),
        at_most("values in three levels", (np.abs(three - values) / scale).max(), 0.5 + ROUNDING),
        above("which is more than a quarter", (np.abs(three - values) / scale).max(), 0.25),
        other("values in three levels, beside the full cache", three, values),
    ]


ENTRY = Entry(
    name="vid_kv",
    title="VidKV",
    arxiv="2503.16257",
    kind=Kind.QUANTISING,
    state="the rounded rows",
    verdict=Exactness.BOUNDED,
    reason="Each number is off by half a step, keys by as much as their frequencies; no bits "
    "survive. Text in place of films.",
    cure="recompute keys and values from residuals: T1",
    theorems=("T1",),
    counterexamples=("quantised_cache",),
    demonstrate=demonstrate,
)

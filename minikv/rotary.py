"""Rotary positions: how far each pair of a head is turned at a position."""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np

from .arithmetic import Arithmetic
from .arrays import Positions, Turns
from .config import ModelConfig
from .errors import ArithmeticRangeError

MOST_RADIANS = 2.0**20  # beyond it the sine and cosine of `minikv.arithmetic.elementary` end


def rope_frequencies(config: ModelConfig, local: bool = False) -> np.ndarray:
    """Radians per position of each pair of a head, ``theta**(-2i/d)``; float32 ``(d/2,)``.

    Su et al. 2021, arXiv 2104.09864, equation 15, with the scaling where configured: Llama 3's
    (long wavelengths are stretched by `factor`, short ones kept, those between interpolated) or a
    linear one. `local` asks for those of the sliding layers, where they have a base of their own.
    The power is taken in decimal arithmetic, whose result does not depend on the platform's math
    library.
    """
    base = config.rope_local_base_freq if local else None
    theta = Decimal(base or config.rope_theta)  # a base of their own also means no scaling, below
    width = Decimal(config.head_dim)
    context = Context(prec=40)
    exponents = [context.divide(Decimal(-i), width) for i in range(0, config.head_dim, 2)]
    frequencies = np.array([float(context.power(theta, exponent)) for exponent in exponents])
    scaling = config.rope_scaling
    if scaling is None or base:
        return frequencies.astype(np.float32)
    kept = np.zeros(1)  # which share of a frequency is not stretched: none of a linear scaling
    if scaling.low_freq_factor and scaling.high_freq_factor:  # Llama 3's
        length = scaling.original_max_position_embeddings or 0
        turns = length * frequencies / (2 * math.pi)  # full ones, over the original context
        span = scaling.high_freq_factor - scaling.low_freq_factor
        kept = np.clip((turns - scaling.low_freq_factor) / span, 0.0, 1.0)
    return (frequencies * (kept + (1 - kept) / scaling.factor)).astype(np.float32)


class Rotary:
    """Cosines and sines of ``position * frequency``, in a table that grows by doubling.

    As in transformers, the angle is a float32 product; its cosine and sine are then taken in
    float64 and kept in ``arithmetic.wide``. A row holds each cosine twice, (c, c), and each sine
    with both signs, (-s, s), so that `Arithmetic.rope` turns both halves of a head at once.
    """

    def __init__(self, config: ModelConfig, arithmetic: Arithmetic, local: bool = False) -> None:
        self._arithmetic = arithmetic
        self._frequencies = rope_frequencies(config, local)
        self._table = self._made(1)

    def __call__(self, positions: Positions) -> tuple[Turns, Turns]:
        """``(T,)`` positions -> cosines and signed sines, each ``(T, 1, d)``."""
        single = len(positions) == 1
        last = int(positions[0]) if single else int(positions.max(initial=0))
        # Both are read at once, from one attribute: another thread may replace it meanwhile.
        cos, sin = self._table
        if last >= cos.shape[0]:
            self._table = self._made(1 << last.bit_length())
            cos, sin = self._table
        if single:  # no copy for the step of a decode
            return cos[last : last + 1, ...], sin[last : last + 1, ...]
        xp = self._arithmetic.xp
        rows = xp.asarray(positions)
        return xp.take(cos, rows, axis=0), xp.take(sin, rows, axis=0)

    def _made(self, length: int) -> tuple[Turns, Turns]:
        """The table of the first `length` positions, twice ``(length, 1, d)``."""
        angle = np.arange(length, dtype=np.float32)[:, None, None] * self._frequencies
        largest = angle.max()
        if not largest <= MOST_RADIANS:
            raise ArithmeticRangeError(
                f"position {length - 1} turns by {largest:g} radians, expected at most 2**20: see "
                "rope_theta and rope_scaling"
            )
        xp = self._arithmetic.xp
        angle = xp.asarray(angle.astype(np.float64))
        cos = self._arithmetic.cos(angle)
        sin = self._arithmetic.sin(angle)
        return xp.concat([cos, cos], axis=-1), xp.concat([-sin, sin], axis=-1)

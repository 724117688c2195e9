"""bfloat16 and float16 in compiled kernels: the bits of `minikv.arithmetic.rounded`, faster.

Products with matrices are compiled, which are nearly all of the work: each product and each sum is
float32's own, rounded once more, in the order that `Rounded.halved` has. The lanes of a vector are
different outputs, so that neither they nor the threads touch an order.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from ..arithmetic import Bfloat16, Float16
from ..arithmetic.base import Matrix
from ..arithmetic.rounded import (
    EXPONENT,
    FLOAT16_END,
    FLOAT16_NORMAL,
    GRID,
    SIGN,
    Rounded,
)
from ..arrays import Inputs, Outputs
from .numba_announce import announced
from .numba_exact import ONE_CALLER

PANEL = 64  # outputs whose terms are added side by side
INFINITE = np.float32(np.inf)
SIXTEEN = np.uint32(16)
ONE = np.uint32(1)
HALF = np.uint32(0x7FFF)  # of bfloat16's last place in a float32, less one
UPPER = np.uint32(0xFFFF0000)
announced.begin()


@njit(cache=True)
def _to_bfloat16(x):
    """`round_to_bfloat16`, in place."""
    bits = x.view(np.uint32)
    for j in range(bits.shape[0]):
        odd = (bits[j] >> SIXTEEN) & ONE
        bits[j] = (bits[j] + HALF + odd) & UPPER


@njit(cache=True)
def _to_float16(x):
    """`round_to_float16`, in place."""
    bits = x.view(np.uint32)
    grid = np.empty(PANEL, np.float32)
    grid_bits = grid.view(np.uint32)
    signs = np.empty(PANEL, np.uint32)
    for start in range(0, x.shape[0], PANEL):
        some = x[start : start + PANEL]
        some_bits = bits[start : start + PANEL]
        for j in range(PANEL):
            exponent = some_bits[j] & EXPONENT
            exponent = exponent if exponent > FLOAT16_NORMAL else FLOAT16_NORMAL
            grid_bits[j] = exponent + GRID
            signs[j] = some_bits[j] & SIGN
        for j in range(PANEL):
            size = abs(some[j])
            rounded = (size + grid[j]) - grid[j]
            rounded = INFINITE if size >= FLOAT16_END else rounded
            some[j] = size if size != size else rounded  # NaN stays
        for j in range(PANEL):
            some_bits[j] |= signs[j]


@njit(cache=True)
def _fit(x, is_float16):
    if is_float16:
        _to_float16(x)
    else:
        _to_bfloat16(x)


@njit("void(f4[:,::1], f4[:,:,::1], b1, f4[:,:,::1])", parallel=True, cache=True)
def _product(x, panels, is_float16, out):
    """``(T, K), (P, K, PANEL) -> (P, T, PANEL)``: terms, and sums of halves until one is left."""
    tokens, inputs = x.shape
    for p in prange(panels.shape[0]):
        terms = np.empty(inputs * PANEL, np.float32)
        for t in range(tokens):
            for i in range(inputs):
                for j in range(PANEL):
                    terms[i * PANEL + j] = x[t, i] * panels[p, i, j]
            _fit(terms, is_float16)
            count = inputs
            while count > 1:
                half = count // 2
                sums = terms[: half * PANEL]
                others = terms[half * PANEL :]
                for j in range(half * PANEL):
                    sums[j] += others[j]
                _fit(sums, is_float16)
                if count % 2:
                    terms[half * PANEL : (half + 1) * PANEL] = terms[
                        (count - 1) * PANEL : count * PANEL
                    ]
                count = half + count % 2
            out[p, t] = terms[:PANEL]


announced.end()


class _Compiled(Rounded):
    """`Rounded`, whose products with matrices are compiled."""

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        """``(N, K) -> (panels, K, PANEL)`` and N; what is left of the last panel is zero."""
        outputs, inputs = matrix.shape
        count = -(-outputs // PANEL)
        padded = np.zeros((count * PANEL, inputs), np.float32)
        padded[:outputs] = self.numbers.of(matrix)
        panels = padded.reshape(count, PANEL, inputs).swapaxes(1, 2)
        return np.ascontiguousarray(panels), outputs

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        panels, outputs = weight
        rows = np.ascontiguousarray(np.asarray(self.numbers.of(x)))
        out = np.empty((len(panels), len(rows), PANEL), np.float32)
        with ONE_CALLER:
            _product(rows, panels, self.numbers is Float16.numbers, out)
        whole = out.swapaxes(0, 1).reshape(len(rows), -1)[:, :outputs]
        return whole.view(self.numbers)


class NumbaBfloat16(_Compiled):
    """`Bfloat16`, compiled."""

    name = Bfloat16.name
    numbers = Bfloat16.numbers


class NumbaFloat16(_Compiled):
    """`Float16`, compiled."""

    name = Float16.name
    numbers = Float16.numbers

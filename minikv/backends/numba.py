"""The exact arithmetic in compiled kernels: the same bits, fewer bytes to read.

A weight that is rounded to its row's grid has 21 bits, which float32 holds; if it was bfloat16
before, it still is, since rounding adds no digit. So weights stay in 4 bytes or in 2, where NumPy's
BLAS needs 8, and a token is decoded in the time that it takes to read them.

Sums of integers may be reordered freely: `_SUMS` lets the compiler do so, and use as many
accumulators and SIMD lanes as it likes, in functions that do nothing but add up numbers on a grid.
All else, above all the rounding to a grid, is compiled without it, operation by operation.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numba.core import event

from ..arithmetic import elementary
from ..arithmetic.exact import _FLOAT32_MAX, _ROUND, _TINY, Exact

_SUMS = {"reassoc", "contract"}  # what exactness allows
_FEW = 8  # rows; more go through BLAS, which reads each weight once for all of them
_BLOCK = 512  # weight rows that BLAS takes at a time, in float64
_LOW, _HIGH = elementary._LOWEST * 256, elementary._HIGHEST * 256
_EXP0, _EXP1, _EXP2, _EXP3 = elementary._EXP
_GELU = math.sqrt(8 / math.pi)
_LOCK = threading.Lock()  # Numba's own threads serve one caller at a time


def _start_threads() -> None:
    """Start OpenMP with threads that sleep while they wait, unless the user wants them to spin.

    They would spin against those of NumPy's BLAS, on the same cores: tens of times slower.
    """
    chosen = "OMP_WAIT_POLICY" in os.environ
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    numba.get_num_threads()  # OpenMP starts, and reads the variable
    if not chosen:
        del os.environ["OMP_WAIT_POLICY"]


class _Announce(event.Listener):
    """Says on standard error, once, that something is compiled rather than read from disk."""

    def on_start(self, event: Any) -> None:
        if not _SAID:
            print("minikv: compiling Numba's kernels, once: they are kept on disk", file=sys.stderr)
        _SAID.append(True)

    def on_end(self, event: Any) -> None:
        pass


_SAID: list[bool] = []
_announced = contextlib.ExitStack()
_announced.enter_context(event.install_listener("numba:compile", _Announce()))


@njit
def _power_below(y):
    q = y * (2.0**52 + 1)
    return q - q * (1 - 2.0**-53)


@njit
def _grid(norm, bits):
    """`Exact._grid` of one row, or NaN where the sum of its absolute values must be exact."""
    target = norm * ((1 + 2.0**-9) * 2.0**-bits)
    power = _power_below(target)
    if abs(target - 1.5 * power) > (0.5 - 2.0**-30) * power:
        return np.nan
    return power * 2.0


@njit(fastmath=_SUMS)
def _norm(x):
    total = 0.0
    for j in range(x.shape[0]):
        total += abs(x[j])
    return total


@njit
def _round_row(x, bits):
    """Round a row, in place, to the finest grid with sum x_int <= 2**bits; False: undecided."""
    shift = _grid(_norm(x), bits) * _ROUND
    for j in range(x.shape[0]):
        x[j] = (x[j] + shift) - shift
    return shift == shift


@njit(fastmath=_SUMS)
def _dot(x, w):
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * np.float64(w[j])
    return total


@njit(fastmath=_SUMS)
def _dot_halves(x, w):
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * np.float64(np.uint32(np.uint32(w[j]) << 16).view(np.float32))
    return total


@njit
def _rounded_rows(x, bits, largest):
    """Rows of `linear`, on their grids; empty where `Exact.linear` must look at them."""
    rows = x.astype(np.float64)
    for t in range(x.shape[0]):
        if not _norm(rows[t]) * largest < _FLOAT32_MAX or not _round_row(rows[t], bits):
            return rows[:0]
    return rows


@njit("boolean(float32[:,::1], float32[:,::1], int64, float64, float32[:,::1])",
      parallel=True, cache=True)  # fmt: skip
def _linear(x, weight, bits, largest, out):
    rows = _rounded_rows(x, bits, largest)
    for n in prange(weight.shape[0]):
        for t in range(rows.shape[0]):
            out[t, n] = np.float32(_dot(rows[t], weight[n])) + np.float32(0.0)
    return rows.shape[0] > 0


@njit("boolean(float32[:,::1], uint16[:,::1], int64, float64, float32[:,::1])",
      parallel=True, cache=True)  # fmt: skip
def _linear_halves(x, weight, bits, largest, out):
    rows = _rounded_rows(x, bits, largest)
    for n in prange(weight.shape[0]):
        for t in range(rows.shape[0]):
            out[t, n] = np.float32(_dot_halves(rows[t], weight[n])) + np.float32(0.0)
    return rows.shape[0] > 0


@njit
def _exp(x, table):
    """`elementary.exp` of a number that is not NaN."""
    f = min(max(x * 256.0, _LOW), _HIGH)
    n = (f + elementary._SHIFT) - elementary._SHIFT
    f -= n
    power = table[np.int64(n) - _LOW]
    return (((f * _EXP3 + _EXP2) * f + _EXP1) * f + _EXP0) * f * power + power


@njit(fastmath=_SUMS)
def _total(x):
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j]
    return total


@njit(fastmath=_SUMS)
def _add(z, weight, v):
    for j in range(z.shape[0]):
        z[j] += weight * np.float64(v[j])


@njit
def _largest(x):
    """max |x|, by the bits, whose order as integers is the same and whose maximum is fast."""
    top = np.int32(0)
    for j in range(x.shape[0]):
        top = max(top, np.int32(np.float32(x[j]).view(np.int32) & 0x7FFFFFFF))
    return np.float64(np.int32(top).view(np.float32))


@njit("boolean(float32[:,:], float32[:,:,:], float32[:,:,:], float64, float64, int64, "
      "float64[::1], float32[:,::1])", parallel=True, cache=True)  # fmt: skip
def _attend(q, k, v, scale, denominator, bits, table, out):
    """Attention of one query ``(H, d)`` to all of ``(S, G, d)``; False where undecided."""
    heads, width = q.shape
    length, share = k.shape[0], heads // k.shape[1]
    if k.strides[2] != 4 or v.strides[2] != 4:  # below, the compiler knows that rows are packed
        return False
    decided = np.ones(heads, dtype=np.bool_)
    for h in prange(heads):
        g = h // share
        row, weights, powers = np.empty(width), np.empty(length), np.empty(length)
        for j in range(width):
            row[j] = np.float64(q[h, j]) * scale
        decided[h] &= _round_row(row, bits)
        top = -np.inf
        for s in range(length):
            weights[s] = _dot(row, k[s, g])
            top = max(top, weights[s])
        for s in range(length):
            weights[s] = (_exp(weights[s] - top, table) + denominator) - denominator
        total = _total(weights)
        for s in range(length):
            powers[s] = _power_below(max(_largest(v[s, g]), _TINY))
            weights[s] = weights[s] / total * powers[s]
        decided[h] &= _round_row(weights, bits)
        row[:] = 0.0
        for s in range(length):
            _add(row, weights[s] * (1.0 / powers[s]), v[s, g])
        for j in range(width):
            out[h, j] = np.float32(row[j]) + np.float32(0.0)
    return np.all(decided)


@njit("void(float32[:,::1], float64[::1], float64, float64, float32[:,::1])", cache=True)
def _rms_norm(x, weight, eps, finest, out):
    squares = np.empty(x.shape[1])
    for t in range(x.shape[0]):
        top = _largest(x[t])
        shift = _power_below(top * top) * finest * _ROUND  # as exact as the squares themselves
        for j in range(x.shape[1]):
            squares[j] = (np.float64(x[t, j]) * np.float64(x[t, j]) + shift) - shift
        root = np.sqrt(_total(squares) / x.shape[1] + eps)
        for j in range(x.shape[1]):
            out[t, j] = np.float32(np.float64(x[t, j]) / root * weight[j])


@njit("void(float32[:,:,::1], float64[:,:,::1], float64[:,:,::1], float32[:,:,::1])", cache=True)
def _rope(x, cos, sin, out):
    half = x.shape[2] // 2
    for t in range(x.shape[0]):
        for h in range(x.shape[1]):
            for j in range(half):
                a, b = np.float64(x[t, h, j]), np.float64(x[t, h, half + j])
                out[t, h, j] = np.float32(b * sin[t, 0, j] + a * cos[t, 0, j])
                turned = a * sin[t, 0, half + j] + b * cos[t, 0, half + j]
                out[t, h, half + j] = np.float32(turned)


@njit("void(float32[:,:,::1], float64, float32[:,:,::1])", cache=True)
def _settle(x, finest, out):
    for t in range(x.shape[0]):
        for g in range(x.shape[1]):
            shift = _power_below(_largest(x[t, g])) * finest * _ROUND
            for j in range(x.shape[2]):
                out[t, g, j] = np.float32((np.float64(x[t, g, j]) + shift) - shift)


@njit("void(float32[:,::1], float32[:,::1], boolean, float64[::1], float32[:,::1])", cache=True)
def _gated(gate, up, gelu, table, out):
    for t in range(gate.shape[0]):
        for j in range(gate.shape[1]):
            y = x = np.float64(gate[t, j])
            if gelu:
                y = (x * x * 0.044715 + 1.0) * x * _GELU
            out[t, j] = np.float32(x / (_exp(-y, table) + 1.0) * np.float64(up[t, j]))


_announced.close()
_start_threads()


@dataclass(frozen=True)
class Packed:
    """A matrix on the grids of `Exact.weight`, in float32 or as the upper halves of float32."""

    values: np.ndarray  # (N, K) float32 or uint16
    largest: float
    name: str

    def __getitem__(self, at: Any) -> Packed:
        return Packed(self.values[at], self.largest, self.name)

    @property
    def wide(self) -> np.ndarray:
        """The matrix in float64, made anew."""
        if self.values.dtype == np.uint16:
            wide = np.left_shift(self.values, 16, dtype=np.uint32)
            return wide.view(np.float32).astype(np.float64)
        return self.values.astype(np.float64)


class NumbaExact(Exact):
    """`Exact` on NumPy arrays with compiled kernels; every method has the bits of `Exact`."""

    def __init__(self, context: int = 2**17) -> None:
        super().__init__(context)
        self._table = elementary._exp_table()

    def weight(self, matrix: np.ndarray, name: str) -> Packed:
        rows = np.empty(matrix.shape, dtype=np.float32)
        largest = 0.0
        for start in range(0, len(matrix), 256):  # bounds the memory of the temporaries
            part = super().weight(matrix[start : start + 256], name)
            rows[start : start + 256] = part.values
            largest = max(largest, part.largest)
        bits = rows.view(np.uint32)
        if not any((bits[i : i + 256] & 0xFFFF).any() for i in range(0, len(bits), 256)):
            rows = np.ascontiguousarray(bits.view(np.uint16)[:, 1::2])
        return Packed(rows, largest, name)

    def linear(self, x: Any, weight: Packed) -> Any:
        if len(x) <= _FEW and x.dtype == np.float32:
            out = np.empty((len(x), len(weight.values)), dtype=np.float32)
            bits = self.significand - self.weight_bits
            kernel = _linear if weight.values.dtype == np.float32 else _linear_halves
            with _LOCK:
                values = np.ascontiguousarray(weight.values)
                if kernel(np.ascontiguousarray(x), values, bits, weight.largest, out):
                    return out
        return super().linear(x, weight)

    def settle(self, x: Any) -> Any:
        out = np.empty(x.shape, dtype=np.float32)
        _settle(np.ascontiguousarray(x), 2.0 ** (1 - self.kv_bits), out)
        return out

    def rms_norm(self, x: Any, weight: np.ndarray, eps: float) -> Any:
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        out = np.empty(rows.shape, dtype=np.float32)
        _rms_norm(rows, weight, eps, 2.0 ** (self.significand - 85), out)
        return out.reshape(x.shape)

    def rope(self, x: Any, cos: np.ndarray, sin: np.ndarray) -> Any:
        out = np.empty(x.shape, dtype=np.float32)
        _rope(np.ascontiguousarray(x), cos, sin, out)
        return out

    def gated(self, gate: Any, up: Any, activation: str) -> Any:
        out = np.empty(gate.shape, dtype=np.float32)
        contiguous = np.ascontiguousarray(gate), np.ascontiguousarray(up)
        _gated(*contiguous, activation != "silu", self._table, out)
        return out

    def product(self, x: np.ndarray, weight: Packed) -> np.ndarray:
        out = np.empty((len(x), len(weight.values)))
        for start in range(0, len(weight.values), _BLOCK):
            part = slice(start, start + _BLOCK)
            np.matmul(x, weight[part].wide.T, out=out[:, part])
        return out

    def attention(
        self, q: Any, k: Any, v: Any, query_positions: np.ndarray, key_positions: np.ndarray,
        scale: float, window: int | None,
    ) -> Any:  # fmt: skip
        """`minikv.layers.attention` of one query, or None where that must do it itself."""
        if len(q) > 1 or key_positions.ndim > 1:
            return None
        last = query_positions[0]
        seen = int(key_positions.searchsorted(last, "right"))
        first = 0 if window is None else int(key_positions.searchsorted(last - window, "right"))
        if seen - first > self.context:
            return None
        out = np.empty(q.shape, dtype=np.float32)
        with _LOCK:
            decided = _attend(
                q[0], k[first:seen], v[first:seen], scale, 2.0**-self.denominator_bits * _ROUND,
                self.significand - self.kv_bits, self._table, out[0],
            )  # fmt: skip
        return out if decided else None

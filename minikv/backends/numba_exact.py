"""The exact arithmetic in compiled kernels: the same bits, fewer bytes to read.

A weight that is rounded to its row's grid has 21 bits, which float32 holds; if it was bfloat16
before, it still is, since rounding adds no digit. So weights stay in 4 bytes or in 2, where NumPy's
BLAS needs 8, and a token is decoded in the time that it takes to read them.

Sums of integers may be reordered freely: `_SUMS` lets the compiler do so, and use as many
accumulators and SIMD lanes as it likes, in functions that do nothing but add up numbers on a grid.
All else, above all the rounding to a grid, is compiled without it, operation by operation.
"""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, njit, prange
from numba.extending import intrinsic, overload

from ..arithmetic import NumpyExact, Sight, Watch, elementary
from ..arithmetic.exact import (
    FLOAT32_MAX,
    HUGE,
    LONGEST,
    MOST_ROWS,
    ROUND,
    TINY,
    WEIGHT_ROWS,
    PreparedValues,
    Weight,
    round_to,
)
from ..arithmetic.sight import UNWATCHED
from ..arrays import (
    Array,
    Features,
    HeadOutputs,
    Heads,
    Inputs,
    Keys,
    NewKeys,
    Outputs,
    Pattern,
    Queries,
    Scores,
    Turns,
    Values,
)
from .numba_announce import announced

_SUMS = {"reassoc", "contract"}  # what exactness allows
_FEW = 8  # rows; more go through BLAS, which reads each weight once for all of them
_BLOCK = 4096  # weight rows that BLAS takes at a time, in float64
_LOW = elementary.LOWEST * 256
_HIGH = elementary.HIGHEST * 256
_EXP0, _EXP1, _EXP2, _EXP3 = elementary.EXP
_GELU = math.sqrt(8 / math.pi)
_SHIFT = elementary.SHIFT
EXP_TABLE = elementary.exp_table()
ONE_CALLER = threading.Lock()  # not every threading layer of Numba serves two callers at once


announced.begin()  # until the kernels below are there


@njit
def _power_below(y):
    q = y * (2.0**52 + 1)
    return q - q * (1 - 2.0**-53)


@njit(fastmath=_SUMS)
def _norm(x):
    """The sum of absolute values, `NumpyExact.row_sum`."""
    total = 0.0
    for j in range(x.shape[0]):
        total += abs(x[j])
    return total


@njit(fastmath=_SUMS)
def _total(x):
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j]
    return total


def _stored(w):
    """A stored weight, float32 or the upper half of one, in float64."""


@overload(_stored, inline="always")
def _(w):
    if w == numba.uint16:
        return lambda w: np.float64(np.uint32(np.uint32(w) << 16).view(np.float32))
    return lambda w: np.float64(w)


@njit(fastmath=_SUMS)
def _dot(x, w):
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * _stored(w[j])
    return total


@njit(fastmath=_SUMS)
def _dot_pairs(x, w):
    """`_dot` by pairs of bfloat16 weights: x holds the first of each pair, then the second."""
    pairs = w.shape[0]
    first = x[:pairs]
    second = x[pairs:]
    low = 0.0
    high = 0.0
    for j in range(pairs):
        pair = w[j]
        low += first[j] * np.float64(np.uint32(pair << np.uint32(16)).view(np.float32))
        high += second[j] * np.float64(np.uint32(pair & np.uint32(0xFFFF0000)).view(np.float32))
    return low + high


def _inner(x, w):
    """`_dot`, or `_dot_pairs` where weights lie in pairs."""


@overload(_inner)
def _(x, w):
    if w.dtype == numba.uint32:
        return lambda x, w: _dot_pairs(x, w)
    return lambda x, w: _dot(x, w)


@njit(fastmath=_SUMS)
def _weigh(z, pattern, v):
    for s in range(pattern.shape[0]):
        for j in range(z.shape[0]):
            z[j] += pattern[s] * np.float64(v[s, j])


@njit
def _largest(x):
    """max |x|, by the bits, whose order as integers is the same and whose maximum is fast."""
    top = np.int32(0)
    for j in range(x.shape[0]):
        top = max(top, np.int32(np.float32(x[j]).view(np.int32) & 0x7FFFFFFF))
    return np.float64(np.int32(top).view(np.float32))


@njit
def _round_row(x, bits):
    """Round a row, in place, to the grid of `NumpyExact.grid`; False where that is in doubt."""
    target = _norm(x) * ((1 + 2.0**-9) * 2.0**-bits)
    power = _power_below(target)
    shift = 2.0 * power * ROUND
    for j in range(x.shape[0]):
        x[j] = (x[j] + shift) - shift
    return abs(target - 1.5 * power) <= (0.5 - 2.0**-30) * power


@njit("b1(f4[:,::1], i8, f8, f8[:,::1])", cache=True)
def _round_rows(x, bits, largest, out):
    """Widen rows and round them; False where `NumpyExact.linears` must look at them."""
    for t in range(x.shape[0]):
        row = out[t]
        for j in range(x.shape[1]):
            row[j] = x[t, j]
        if not _norm(row) * largest < FLOAT32_MAX or not _round_row(row, bits):
            return False
    return True


_STORED = ("f4", "u2", "u4")  # float32, bfloat16, and bfloat16 in pairs
_LINEAR = [f"b1(f4[:,::1], {stored}[:,::1], i8, f8, f4[:,::1])" for stored in _STORED]


@njit(_LINEAR, parallel=True, cache=True)
def _linear(x, weight, bits, largest, out):
    """A few rows by all weights; False where `NumpyExact.linears` must look at the rows."""
    rows = np.empty(x.shape)
    if not _round_rows(x, bits, largest, rows):
        return False
    for n in prange(weight.shape[0]):
        for t in range(rows.shape[0]):
            out[t, n] = np.float32(_inner(rows[t], weight[n])) + np.float32(0.0)
    return True


_PRODUCTS = [f"void(f8[:,::1], {stored}[:,::1], f8[:,::1])" for stored in ("f4", "u2")]


@njit(_PRODUCTS, parallel=True, cache=True)
def _product(rows, weight, out):
    """A few rows, on their grids, by all weights, in float64: a rank's part of a split sum."""
    for n in prange(weight.shape[0]):
        for t in range(rows.shape[0]):
            out[t, n] = _dot(rows[t], weight[n])


_PAIRS = [f"b1(f4[:,::1], {w}[:,::1], {w}[:,::1], i8, f8, f4[:,::1], f4[:,::1])" for w in _STORED]


@njit(_PAIRS, parallel=True, cache=True)
def _linear_pair(x, weight, other, bits, largest, out, other_out):
    """`_linear` by two matrices at once."""
    rows = np.empty(x.shape)
    if not _round_rows(x, bits, largest, rows):
        return False
    for i in prange(weight.shape[0] + other.shape[0]):
        n = i - weight.shape[0]
        for t in range(rows.shape[0]):
            if n < 0:
                out[t, i] = np.float32(_inner(rows[t], weight[i])) + np.float32(0.0)
            else:
                other_out[t, n] = np.float32(_inner(rows[t], other[n])) + np.float32(0.0)
    return True


@njit
def _rounded(w, shift, out):
    for j in range(w.shape[0]):
        out[j] = (np.float64(w[j]) + shift) - shift


_LOADED = numba.types.Array(numba.f4, 2, "C", readonly=True)  # a view of the file, perhaps
_MADE = numba.types.Array(numba.f4, 2, "C")
_TIED = numba.b1(_MADE, _LOADED, numba.f8[::1], numba.i8, numba.f8, _MADE)


@njit(_TIED, parallel=True, cache=True)
def _linear_tied(x, weight, shifts, bits, largest, out):
    """`_linear` by weights that are yet to be rounded to their grids."""
    rows = np.empty(x.shape)
    if not _round_rows(x, bits, largest, rows):
        return False
    for part in prange((weight.shape[0] + 63) // 64):
        row = np.empty(weight.shape[1])
        for n in range(64 * part, min(64 * part + 64, weight.shape[0])):
            _rounded(weight[n], shifts[n], row)
            for t in range(rows.shape[0]):
                out[t, n] = np.float32(_dot(rows[t], row)) + np.float32(0.0)
    return True


@njit
def exp_in_place(x, table):
    """`elementary.exp` of a row, in place; NaN becomes 0. Loops of their own fill SIMD lanes."""
    index, power = np.empty(x.shape[0], np.uint32), np.empty(x.shape[0])
    for j in range(x.shape[0]):
        f = x[j] * 256.0
        f = f if f > _LOW else _LOW
        f = f if f < _HIGH else _HIGH
        n = (f + _SHIFT) - _SHIFT
        x[j] = f - n
        index[j] = np.int32(n) - np.int32(_LOW)
    for j in range(x.shape[0]):
        power[j] = table[index[j]]
    for j in range(x.shape[0]):
        f = x[j]
        x[j] = (((f * _EXP3 + _EXP2) * f + _EXP1) * f + _EXP0) * f * power[j] + power[j]


@njit
def _weights(row, denominator, table):
    """`Exact.softmax` of a row, in place."""
    top = -np.inf
    known = True
    for s in range(row.shape[0]):
        top = max(top, row[s])
    for s in range(row.shape[0]):
        row[s] -= top
        known &= row[s] == row[s]
    exp_in_place(row, table)
    for s in range(row.shape[0]):
        row[s] = (row[s] + denominator) - denominator
    total = _total(row) if known else np.nan  # NaN has no weight: the row is NaN, and refused
    for s in range(row.shape[0]):
        row[s] /= total


@njit("void(f8[:,::1], f8, f8[::1])", cache=True)
def _softmax(scores, denominator, table):
    for i in range(scores.shape[0]):
        _weights(scores[i], denominator, table)


def _pointer(typing, address):
    """An address as a pointer to float32."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return numba.types.CPointer(numba.f4)(numba.types.intp), code


_floats: Any = intrinsic(_pointer)


@njit
def _group(x, g):
    """``(S, G, d) -> (S, stride)``, whose first d columns are group g: packed, for the compiler."""
    return carray(_floats(x[0, g].ctypes.data), (x.shape[0], x.strides[0] // 4))


_ATTEND = (
    "b1(f4[:,:,:], f4[:,:,:], f4[:,:,:], i8[:], i8[:], f8, f8, i8, f8[::1], f4[:,:,::1], f8[:,:,:])"
)


@njit(_ATTEND, parallel=True, cache=True)
def _attend(q, k, v, first, last, scale, denominator, bits, table, out, weights):
    """Each query of ``(T, H, d)`` to its rows of ``(S, G, d)``; False where a grid is in doubt.

    Its weights are written into `weights`, ``(H, T, S)``, unless that is empty.
    """
    tokens, heads, width = q.shape
    share = heads // k.shape[1]
    powers = np.empty((k.shape[1], k.shape[0]))
    for g in range(k.shape[1]):
        values = _group(v, g)
        for s in range(k.shape[0]):
            powers[g, s] = _power_below(max(_largest(values[s, :width]), TINY))
    decided = np.ones(heads * tokens, dtype=np.bool_)
    for i in prange(heads * tokens):
        h, t = i // tokens, i % tokens
        seen = slice(first[t], last[t])
        keys, values = _group(k, h // share)[seen], _group(v, h // share)[seen]
        row = np.empty(width)
        pattern = np.empty(len(keys))
        power = powers[h // share, seen]
        for j in range(width):
            row[j] = np.float64(q[t, h, j]) * scale
        decided[i] &= _round_row(row, bits)
        for s in range(len(keys)):
            pattern[s] = _dot(row, keys[s, :width])
        _weights(pattern, denominator, table)
        if weights.shape[0] > 0:
            weights[h, t, first[t] : last[t]] = pattern
        pattern *= power
        decided[i] &= _round_row(pattern, bits)
        pattern /= power
        row[:] = 0.0
        _weigh(row, pattern, values)
        for j in range(width):
            out[t, h, j] = np.float32(row[j]) + np.float32(0.0)
    return np.all(decided)


@njit("b1(f4[:,:,::1], f8, i8, f8[:,:,::1])", cache=True)
def _place_queries(q, scale, bits, out):
    """Scaled queries ``(T, H, d)`` on their grids, ``(G, T*R, d)``; False as `_attend`."""
    share = q.shape[1] // out.shape[0]
    decided = True
    for t in range(q.shape[0]):
        for h in range(q.shape[1]):
            row = out[h // share, t * share + h % share]
            for j in range(q.shape[2]):
                row[j] = np.float64(q[t, h, j]) * scale
            decided &= _round_row(row, bits)
    return decided


_WEIGHTS = "b1(f8[:,::1], i8, i8[:], i8[:], f8[:], f8, i8, f8[::1])"


@njit(_WEIGHTS, parallel=True, cache=True)
def _place_weights(scores, share, first, last, powers, denominator, bits, table):
    """Scores ``(T*R, S)``, in place, to weights times the powers of V; False as `_attend`.

    A query sees the keys from `first` on and before `last`, both ``(T,)``. The rows are then on
    grids of which each key has a multiple.
    """
    decided = np.ones(len(scores), dtype=np.bool_)
    for i in prange(len(scores)):
        t = i // share
        scores[i, : first[t]] = 0.0
        scores[i, last[t] :] = 0.0
        row = scores[i, first[t] : last[t]]
        _weights(row, denominator, table)
        row *= powers[first[t] : last[t]]
        decided[i] &= _round_row(row, bits)
    return np.all(decided)


@njit("void(f4[:,::1], f8[::1], f8, f8, f4[:,::1])", cache=True)
def _rms_norm(x, weight, eps, finest, out):
    squares = np.empty(x.shape[1])
    for t in range(x.shape[0]):
        shift = _power_below(_largest(x[t]) ** 2) * finest * ROUND
        for j in range(x.shape[1]):
            squares[j] = (np.float64(x[t, j]) * np.float64(x[t, j]) + shift) - shift
        root = np.sqrt(_total(squares) / x.shape[1] + eps)
        for j in range(x.shape[1]):
            out[t, j] = np.float32(np.float64(x[t, j]) / root * weight[j])


@njit("void(f4[:,:,::1], f8[:,:,::1], f8[:,:,::1], f4[:,:,::1])", cache=True)
def _rope(x, cos, sin, out):
    half = x.shape[2] // 2
    for t in range(x.shape[0]):
        for h in range(x.shape[1]):
            for j in range(x.shape[2]):
                turned = np.float64(x[t, h, j - half if j >= half else j + half]) * sin[t, 0, j]
                out[t, h, j] = np.float32(turned + np.float64(x[t, h, j]) * cos[t, 0, j])


@njit("void(f4[:,::1], f8, f4[:,::1])", cache=True)
def _settle(x, finest, out):
    for t in range(x.shape[0]):
        shift = _power_below(_largest(x[t])) * finest * ROUND
        for j in range(x.shape[1]):
            out[t, j] = np.float32((np.float64(x[t, j]) + shift) - shift)


@njit("void(f4[:,::1], f4[:,::1], b1, f8[::1], f4[:,::1])", cache=True)
def _gated(gate, up, gelu, table, out):
    row = np.empty(gate.shape[1])
    for t in range(gate.shape[0]):
        for j in range(gate.shape[1]):
            y = x = np.float64(gate[t, j])
            if gelu:
                y = (x * x * 0.044715 + 1.0) * x * _GELU
            row[j] = -y
        exp_in_place(row, table)
        for j in range(gate.shape[1]):
            x = np.float64(gate[t, j])
            out[t, j] = np.float32(x / (row[j] + 1.0) * np.float64(up[t, j]))


@njit("void(f8[:,:], f4[:,:])", cache=True)
def _narrow(x, out):
    for t in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[t, j] = np.float32(x[t, j]) + np.float32(0.0)


@njit(numba.void(_LOADED, numba.f8[::1]), cache=True)
def _tops(w, out):
    for n in range(w.shape[0]):
        out[n] = _largest(w[n])


@njit(numba.void(_LOADED, numba.f8[::1], _MADE), cache=True)
def _on_grids(w, shifts, out):
    for n in range(w.shape[0]):
        for j in range(w.shape[1]):
            out[n, j] = np.float32((np.float64(w[n, j]) + shifts[n]) - shifts[n])


@njit("b1(f8[:,:,::1], f8[:,::1], i8, f8[:,:,::1])", cache=True)
def _place(pattern, powers, bits, out):
    """Weights ``(G, R*T, S)`` on grids of which each key has a multiple; False as `_attend`."""
    decided = True
    for g in range(pattern.shape[0]):
        for t in range(pattern.shape[1]):
            row = out[g, t]
            for s in range(row.shape[0]):
                row[s] = pattern[g, t, s] * powers[g, s]
            decided &= _round_row(row, bits)
            for s in range(row.shape[0]):
                row[s] /= powers[g, s]
    return decided


announced.end()


def _rows(x: np.ndarray) -> np.ndarray:
    """``(..., K) -> (rows, K)``, contiguous, writable: what most kernels are compiled for."""
    return _packed(x).reshape(-1, x.shape[-1])


def _packed(x: np.ndarray) -> np.ndarray:
    """`x` itself where it is contiguous and can be written to, or else a copy that is."""
    return x if x.flags.carray else np.array(x, order="C")


def _has_pairs(x: np.ndarray) -> bool:
    """Whether the weights of these rows can be read two at a time, the first in the lower half."""
    return x.shape[1] % 2 == 0 and sys.byteorder == "little"


def _is_bfloat16(w: np.ndarray) -> bool:
    """Whether the lower halves of all float32 are zero, as those of bfloat16 are."""
    halves = (w[start : start + 256].view("<u2")[:, ::2] for start in range(0, len(w), 256))
    return not any(lower.any() for lower in halves)


@dataclass(frozen=True)
class TiedWeight(Weight):
    """A matrix that is also the embedding, as it was loaded, so that it is held once."""

    shifts: np.ndarray  # (N,): adding and subtracting it rounds a row to its grid


class NumbaExact(NumpyExact):
    """`Exact` on NumPy arrays with compiled kernels; every method has the bits of `Exact`.

    A kernel that rounds rows to grids returns False where two orders of addition might disagree on
    a grid, or a number is not finite. The same method of `NumpyExact` or `Arithmetic` then decides,
    or refuses the number in words.
    """

    # Sums

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Weight:
        """float32, or, where that loses nothing, the upper halves of float32 as uint16."""
        if not 1 <= matrix.shape[1] <= LONGEST:
            return super().weight(matrix, name)  # which refuses it
        matrix = np.ascontiguousarray(matrix, np.float32)
        starts = range(0, len(matrix), WEIGHT_ROWS)
        blocks = [matrix[start : start + WEIGHT_ROWS] for start in starts]
        top = np.concatenate([self.row_tops(block, name) for block in blocks])
        shifts = self.weight_grid(top)[:, 0] * ROUND
        largest = 2.0 * float(top.max())
        if tied and not _is_bfloat16(matrix):
            return TiedWeight(matrix, largest, name, shifts)
        values = np.empty(matrix.shape, np.float32)
        _on_grids(matrix, shifts, values)
        if _is_bfloat16(values):
            values = values.view("<u2")[:, 1::2]
        kept = self._room.empty(values.shape, values.dtype)
        kept[:] = values
        return Weight(kept, largest, name)

    def row_tops(self, rows: np.ndarray, name: str) -> np.ndarray:
        top = np.empty(len(rows))
        _tops(np.ascontiguousarray(rows, np.float32), top)
        return top[:, None] if top.max() < HUGE else super().row_tops(rows, name)  # which refuses

    def linears(self, x: Inputs, *weights: Weight) -> tuple[Outputs, ...]:
        if len(x) > MOST_ROWS or x.dtype != np.float32:
            return super().linears(x, *weights)
        x = _rows(x)
        outs = tuple(np.empty((len(x), len(w.values)), dtype=np.float32) for w in weights)
        products = self._few_rows if len(x) <= _FEW else self._many_rows
        decided = products(x, weights, outs)
        return outs if decided else super().linears(x, *weights)

    def _few_rows(self, x: Inputs, weights: tuple[Weight, ...], outs: tuple[Outputs, ...]) -> bool:
        """The products in kernels, which read each weight once; False where one is in doubt."""
        bits = self.significand - self.weight_bits
        values = [np.ascontiguousarray(weight.values) for weight in weights]
        if all(matrix.dtype == np.uint16 for matrix in values) and _has_pairs(x):
            values = [matrix.view(np.uint32) for matrix in values]
            x = np.concatenate([x[:, ::2], x[:, 1::2]], axis=1)
        largest = max(weight.largest for weight in weights)  # a bound for each
        alike = len({matrix.dtype for matrix in values}) == 1
        tied = any(isinstance(weight, TiedWeight) for weight in weights)
        with ONE_CALLER:
            if len(weights) == 2 and alike and not tied:
                first, second = values
                return _linear_pair(x, first, second, bits, largest, outs[0], outs[1])
            decided = True
            for weight, matrix, out in zip(weights, values, outs, strict=True):
                if isinstance(weight, TiedWeight):
                    decided &= _linear_tied(x, matrix, weight.shifts, bits, largest, out)
                else:
                    decided &= _linear(x, matrix, bits, largest, out)
            return decided

    def _many_rows(self, x: Inputs, weights: tuple[Weight, ...], outs: tuple[Outputs, ...]) -> bool:
        """The products by BLAS, between kernels; False where a row's grid is in doubt."""
        rows = np.empty(x.shape)
        largest = max(weight.largest for weight in weights)
        if not _round_rows(x, self.significand - self.weight_bits, largest, rows):
            return False
        for weight, out in zip(weights, outs, strict=True):
            _narrow(self.product(rows, weight), out)
        return True

    def product(self, x: Inputs, weight: Weight) -> Outputs:
        out = np.empty((len(x), len(weight.values)))
        if len(x) <= _FEW and not isinstance(weight, TiedWeight):
            with ONE_CALLER:
                _product(_packed(x), np.ascontiguousarray(weight.values), out)
            return out
        for start in range(0, len(weight.values), _BLOCK):
            block = slice(start, start + _BLOCK)
            part = weight.values[block]
            if part.dtype == np.uint16:
                part = np.left_shift(part, 16, dtype=np.uint32).view(np.float32)
            part = part.astype(np.float64)
            if isinstance(weight, TiedWeight):
                part = round_to(part, weight.shifts[block, None] / ROUND)
            np.matmul(x, part.T, out=out[:, block])
        return out

    def settle(self, x: NewKeys) -> NewKeys:
        out = np.empty(x.shape, dtype=np.float32)
        _settle(_rows(x), 2.0 ** (1 - self.kv_bits), _rows(out))
        return out

    def softmax(self, scores: Scores) -> Pattern:
        if scores.shape[-1] > self.context or scores.dtype != np.float64:
            return super().softmax(scores)  # which may refuse
        pattern = np.array(scores, order="C")
        rows = pattern.reshape(-1, scores.shape[-1])  # a view
        _softmax(rows, 2.0**-self.denominator_bits * ROUND, EXP_TABLE)
        return pattern

    def weighted_sum(self, pattern: Pattern, v: Values | PreparedValues) -> HeadOutputs:
        v = self.values(v)
        heads, tokens, length = pattern.shape
        groups, head_dim = v.rows.shape[1:]
        given = np.require(pattern, np.float64, ("C", "W")).reshape(groups, -1, length)
        powers = np.ascontiguousarray(v.powers[..., 0].T)
        placed = np.empty(given.shape)
        if not _place(given, powers, self.significand - self.kv_bits, placed):
            return super().weighted_sum(pattern, v)
        sums = placed @ v.rows.swapaxes(0, 1)  # (G, R*T, d)
        sums = sums.reshape(heads, -1, head_dim).swapaxes(0, 1)  # (T, H, d)
        z = np.empty((tokens, heads, head_dim), np.float32)
        _narrow(sums.reshape(tokens, -1), z.reshape(tokens, -1))
        return z

    # Parts of a block, done whole

    def rms_norm(self, x: Array, weight: np.ndarray, eps: float) -> Array:
        out = np.empty(x.shape, dtype=np.float32)
        _rms_norm(_rows(x), weight, eps, 2.0 ** (self.significand - 85), _rows(out))
        return out

    def rope(self, x: Heads, cos: Turns, sin: Turns) -> Heads:
        out = np.empty(x.shape, dtype=np.float32)
        _rope(_packed(x), cos, sin, out)
        return out

    def gated(self, gate: Features, up: Features, activation: str) -> Features:
        out = np.empty(gate.shape, dtype=np.float32)
        gelu = _GELU_BY_NAME[activation]
        _gated(_rows(gate), _rows(up), gelu, EXP_TABLE, out)
        return out

    def attention(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        sight: Sight,
        scale: float,
        watch: Watch = UNWATCHED,
    ) -> HeadOutputs:
        """Few queries in one kernel, many by BLAS between kernels; the rest as `Arithmetic`."""
        seen = None if watch.hooked else SeenKeys.by(sight)
        if seen is not None and seen.most <= self.context:
            out = np.empty(q.shape, np.float32)
            keys = k[seen.all]
            values = v[seen.all]
            if len(q) <= _FEW:
                watched = watch.observe is not None
                weights = np.zeros((q.shape[1] * watched, len(q), seen.all.stop))
                if self._attend_few(q, keys, values, seen, scale, out, weights):
                    if watch.observe is not None:
                        watch.observe(sight.query_positions, weights)
                    return out
            elif watch.nobody and self._attend_many(q, keys, values, seen, scale, out):
                return out
        return super().attention(q, k, v, sight, scale, watch)

    def _attend_few(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        seen: SeenKeys,
        scale: float,
        out: HeadOutputs,
        weights: Pattern,
    ) -> bool:
        """Attention into `out`; False where it is in doubt, or the arrays are not as compiled.

        The weights go into `weights`, ``(H, T, S)``, whose columns are keys, the first included.
        """
        if not _as_compiled(q, k, v):
            return False
        denominator = 2.0**-self.denominator_bits * ROUND
        bits = self.significand - self.kv_bits
        first = seen.first
        last = seen.last
        weights = weights[..., seen.all]
        with ONE_CALLER:
            return _attend(q, k, v, first, last, scale, denominator, bits, EXP_TABLE, out, weights)

    def _attend_many(
        self, q: Queries, k: Keys, v: Values, seen: SeenKeys, scale: float, out: HeadOutputs
    ) -> bool:
        """Attention into `out`, one K/V head at a time; False where a grid is in doubt.

        Weights times powers meet values divided by them: the terms of each sum are those of
        `weighted_sum`, and exact as they are.
        """
        tokens, heads, head_dim = q.shape
        groups = k.shape[1]
        share = heads // groups
        denominator = 2.0**-self.denominator_bits * ROUND
        bits = self.significand - self.kv_bits
        queries = np.empty((groups, tokens * share, head_dim))
        if not _place_queries(_packed(q), scale, bits, queries):
            return False
        keys = np.ascontiguousarray(k.transpose(1, 2, 0), np.float64)  # (G, d, S)
        prepared = self.values(v)
        values = (prepared.rows / prepared.powers).transpose(1, 0, 2)  # (G, S, d)
        powers = np.ascontiguousarray(prepared.powers[..., 0].T)  # (G, S)
        room = np.empty(2 * self.query_block * share * len(k))
        for start in range(0, tokens, 2 * self.query_block):
            some = slice(start, min(start + 2 * self.query_block, tokens))
            low = int(seen.first[some][0])
            high = int(seen.last[some][-1])
            first = seen.first[some] - low
            last = seen.last[some] - low
            rows = slice(some.start * share, some.stop * share)
            scores = room[: len(first) * share * (high - low)].reshape(-1, high - low)
            for g in range(groups):
                np.matmul(queries[g, rows], keys[g, :, low:high], out=scores)
                power = powers[g, low:high]
                with ONE_CALLER:
                    decided = _place_weights(
                        scores, share, first, last, power, denominator, bits, EXP_TABLE
                    )
                if not decided:
                    return False
                z = (scores @ values[g, low:high]).reshape(-1, share, head_dim)
                out[some, g * share : (g + 1) * share] = z
        out += np.float32(0.0)  # and -0.0, of a product of its own, becomes +0.0
        return True


@dataclass(frozen=True)
class SeenKeys:
    """Which keys each query sees, from the `first` on and before the `last`: both ``(T,)`` int.

    Both count from the start of `all`, the keys that any query sees.
    """

    all: slice
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def by(cls, sight: Sight) -> SeenKeys | None:
        """The same as a `Sight` says; None where heads see other numbers of keys."""
        by_head = sight.key_positions.reshape(len(sight.key_positions), -1).T  # (1 or G, S)
        last = _passed(by_head, sight.query_positions)
        first = np.zeros_like(last)
        if sight.window is not None:
            first = _passed(by_head, sight.query_positions - sight.window)
        if (first != first[0]).any() or (last != last[0]).any():
            return None
        seen = slice(int(first[0, 0]), int(last[0, -1]))  # positions ascend
        return cls(seen, first[0] - seen.start, last[0] - seen.start)

    @property
    def most(self) -> int:
        """How many keys one query sees at most."""
        return int((self.last - self.first).max())


def _passed(key_positions: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """How many keys of each head lie at a position or before it, ``(G, S), (T,) -> (G, T)``."""
    return np.stack([keys.searchsorted(positions, "right") for keys in key_positions])


_GELU_BY_NAME = {"silu": False, "gelu_pytorch_tanh": True}


def _as_compiled(q: Queries, k: Keys, v: Values) -> bool:
    """Whether a row's numbers lie side by side, rows do not overlap, and all can be written to."""
    side_by_side = k.strides[2] == v.strides[2] == 4
    apart = min(k.strides[0], v.strides[0]) >= 4 * q.shape[2]
    writable = q.flags.writeable and k.flags.writeable and v.flags.writeable
    return side_by_side and apart and writable

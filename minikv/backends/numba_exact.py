"""The exact arithmetic in compiled kernels: the same bits, fewer bytes to read.

A weight that is rounded to its row's grid has 21 bits, which float32 holds; if it was bfloat16
before, it still is, since rounding adds no digit. So weights stay in 4 bytes or in 2, where NumPy's
BLAS needs 8, and a token is decoded in the time that it takes to read them.

Sums of integers may be reordered freely: `_SUMS` lets the compiler do so, and use as many
accumulators and SIMD lanes as it likes, in functions that do nothing but add up numbers on a grid,
one of which calls the rounding. All else, above all the rounding to a grid, is compiled without it,
operation by operation.
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
from ..errors import InputError
from .numba_announce import announced
from .numba_tile import chains

_SUMS = {"reassoc", "contract"}  # what exactness allows
_FEW = 8  # rows; more meet each weight in tiles, in which it is widened once for all of them
_BLOCK = 4096  # weight rows that BLAS takes at a time, in float64, where a kernel is not enough
_LANES = 8  # numbers in a vector, and in a line of the processor's cache
_TILE = 8  # rows in registers
_PANEL = 16  # outputs in registers
_PANELS = 2  # that a thread widens at a time, and that a tile's rows then meet
_TOKENS = 8  # whose queries are a task: whole tiles, however many heads share keys
_RUN = 256  # keys that attention of few queries takes at a time
_ROWS = 32  # that a thread takes at a time of many; so few are left to one thread
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


@njit
def _halves(rows):
    pairs = rows.shape[1] // 2
    out = np.empty(rows.shape)
    for t in range(rows.shape[0]):
        for j in range(pairs):
            out[t, j] = rows[t, 2 * j]
            out[t, pairs + j] = rows[t, 2 * j + 1]
    return out


def _inner(x, w):
    """`_dot`, or `_dot_pairs` where weights lie in pairs."""


@overload(_inner)
def _(x, w):
    if w.dtype == numba.uint32:
        return lambda x, w: _dot_pairs(x, w)
    return lambda x, w: _dot(x, w)


def _ordered(rows, w):
    """Rows as `_inner` takes them; for pairs, the first numbers of all pairs, then the second."""


@overload(_ordered)
def _(rows, w):
    if w.dtype == numba.uint32:
        return lambda rows, w: _halves(rows)
    return lambda rows, w: rows


@njit(fastmath=_SUMS)
def _weigh(z, pattern, v):
    for s in range(pattern.shape[0]):
        for j in range(z.shape[0]):
            z[j] += pattern[s] * np.float64(v[s, j])


@njit(fastmath=_SUMS)
def _three_dots(x, w, out):
    """`_dot` of three rows with each of w, whose numbers are read and widened once for all."""
    for s in range(w.shape[0]):
        first = 0.0
        second = 0.0
        third = 0.0
        for j in range(x.shape[1]):
            number = np.float64(w[s, j])
            first += x[0, j] * number
            second += x[1, j] * number
            third += x[2, j] * number
        out[0, s] = first
        out[1, s] = second
        out[2, s] = third


@njit(fastmath=_SUMS)
def _weigh_three(z, pattern, v):
    """`_weigh` of three rows, for which two values at a time are read and widened once."""
    keys = v.shape[0]
    for s in range(0, keys, 2):
        after = min(s + 1, keys - 1)
        again = np.float64(after - s)  # 0 where the last of an odd number is read twice
        first = pattern[0, s]
        second = pattern[1, s]
        third = pattern[2, s]
        first_after = pattern[0, after] * again
        second_after = pattern[1, after] * again
        third_after = pattern[2, after] * again
        for j in range(z.shape[1]):
            one = np.float64(v[s, j])
            other = np.float64(v[after, j])
            z[0, j] += first * one + first_after * other
            z[1, j] += second * one + second_after * other
            z[2, j] += third * one + third_after * other


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


@njit("b1(f4[:,::1], f8[:,::1], i8, f8)", cache=True)
def _round_rows(x, out, bits, largest):
    """Widen rows and round them; False where `NumpyExact.linears` must look at them."""
    for t in range(x.shape[0]):
        row = out[t, : x.shape[1]]
        for j in range(x.shape[1]):
            row[j] = x[t, j]
        if not _norm(row) * largest < FLOAT32_MAX or not _round_row(row, bits):
            return False
    return True


@njit
def _all(flags):
    return np.all(flags)  # which a parallel kernel would share out among threads


_STORED = ("f4", "u4")  # float32, and bfloat16 in pairs
_LINEAR = [f"b1(f4[:,::1], {w}[:,::1], {w}[:,::1], i8, f8, f4[:,::1], f4[:,::1])" for w in _STORED]


@njit(_LINEAR, parallel=True, cache=True)
def _linear(x, weight, other, bits, largest, out, other_out):
    """A few rows by all weights of two matrices, the second of which may have none.

    False where `NumpyExact.linears` must look at the rows.
    """
    rows = np.empty(x.shape)
    if not _round_rows(x, rows, bits, largest):
        return False
    rows = _ordered(rows, weight)
    for i in prange(weight.shape[0] + other.shape[0]):
        n = i - weight.shape[0]
        for t in range(rows.shape[0]):
            if n < 0:
                out[t, i] = np.float32(_inner(rows[t], weight[i])) + np.float32(0.0)
            else:
                other_out[t, n] = np.float32(_inner(rows[t], other[n])) + np.float32(0.0)
    return True


_PRODUCTS = [f"void(f8[:,::1], {stored}[:,::1], f8[:,::1])" for stored in ("f4", "u2")]


@njit(_PRODUCTS, parallel=True, cache=True)
def _product(rows, weight, out):
    """A few rows, on their grids, by all weights, in float64: a rank's part of a split sum."""
    for n in prange(weight.shape[0]):
        for t in range(rows.shape[0]):
            out[t, n] = _dot(rows[t], weight[n])


@njit
def _to_grid(w, shift):
    """A number rounded, in a function of its own, since `_SUMS` would delete that."""
    return (np.float64(w) + shift) - shift


@njit(fastmath=_SUMS)
def _dot_rounded(x, w, shift):
    """`_dot` by a row that is rounded as it is read."""
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * _to_grid(w[j], shift)
    return total


@njit
def _rounded(w, shift, out):
    for j in range(w.shape[0]):
        out[j] = _to_grid(w[j], shift)


_LOADED = numba.types.Array(numba.f4, 2, "C", readonly=True)  # a view of the file, perhaps
_MADE = numba.types.Array(numba.f4, 2, "C")
_TIED = numba.b1(_MADE, _LOADED, numba.f8[::1], numba.i8, numba.f8, _MADE)


@njit(_TIED, parallel=True, cache=True)
def _linear_tied(x, weight, shifts, bits, largest, out):
    """`_linear` by weights that are yet to be rounded to their grids: once for all rows."""
    rows = np.empty(x.shape)
    if not _round_rows(x, rows, bits, largest):
        return False
    for part in prange((weight.shape[0] + 63) // 64):
        row = np.empty(weight.shape[1])
        for n in range(64 * part, min(64 * part + 64, weight.shape[0])):
            if rows.shape[0] == 1:
                out[0, n] = np.float32(_dot_rounded(rows[0], weight[n], shifts[n])) + np.float32(
                    0.0
                )
            else:
                _rounded(weight[n], shifts[n], row)
                for t in range(rows.shape[0]):
                    out[t, n] = np.float32(_dot(rows[t], row)) + np.float32(0.0)
    return True


_product_tile = chains(_TILE, _LANES, _PANEL // _LANES, carried=True, itemsize=8)


@njit
def _widen(weight, shifts, panel):
    """Rows of weights or keys side by side, in float64, rounded to grids where shifts are given."""
    for c in range(weight.shape[0]):
        shift = shifts[c] if shifts.shape[0] > 0 else 0.0
        for j in range(weight.shape[1]):
            panel[j, c] = _to_grid(_stored(weight[c, j]), shift)


@njit
def _keep(sums, out, row, column):
    """A tile's sums, as far as there are rows and outputs for them."""
    for r in range(min(_TILE, out.shape[0] - row)):
        for c in range(min(_PANEL, out.shape[1] - column)):
            out[row + r, column + c] = np.float32(sums[r, c]) + np.float32(0.0)


_READ = [numba.types.Array(stored, 2, "C", readonly=True) for stored in (numba.f4, numba.u2)]
_MANY = [numba.void(numba.f8[:, ::1], stored, numba.f8[::1], numba.f4[:, ::1]) for stored in _READ]


@njit(_MANY, parallel=True, cache=True)
def _linear_many(rows, weight, shifts, out):
    """Many rows, on their grids and in whole tiles, by all weights: each sum is rounded once.

    Between two rows lie numbers that are not read. `shifts` rounds weights that are yet to be
    rounded, and has none otherwise.
    """
    outputs, inputs = weight.shape
    step = _PANELS * _PANEL
    for i in prange((outputs + step - 1) // step):
        packed = np.zeros((_PANELS, inputs, _PANEL))
        for p in range(_PANELS):
            some = slice(i * step + p * _PANEL, i * step + (p + 1) * _PANEL)
            _widen(weight[some], shifts[some], packed[p])
        sums = np.empty((_TILE, _PANEL))
        for t in range(0, out.shape[0], _TILE):
            x = rows[t].ctypes.data
            for p in range(_PANELS):
                w = packed[p].ctypes.data
                _product_tile(x, rows.shape[1], 1, w, _PANEL, sums.ctypes.data, _PANEL, inputs, 1)
                _keep(sums, out, t, i * step + p * _PANEL)


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


@njit
def _place_queries(q, g, share, scale, bits, out):
    """Queries ``(T, H, d)`` of a K/V head, scaled, on grids ``(T*R, d)``; False as `_attend`."""
    decided = True
    for t in range(q.shape[0]):
        for r in range(share):
            row = out[t * share + r]
            for j in range(q.shape[2]):
                row[j] = np.float64(q[t, g * share + r, j]) * scale
            decided &= _round_row(row, bits)
    return decided


@njit
def _powers(values, start, stop, width, out):
    """The power of two of each value of a run, as `NumpyExact.values` has it."""
    for s in range(start, stop):
        out[s] = _power_below(max(_largest(values[s, :width]), TINY))


@njit
def _score_run(queries, keys, first, last, start, stop, out):
    """Products of queries ``(T*R, d)`` with those keys of a run that they see, ``(T*R, S)``.

    Three of the R heads of a token read a key once.
    """
    tokens = first.shape[0]
    share = queries.shape[0] // tokens
    for t in range(tokens):
        low = max(start, first[t])
        high = min(stop, last[t])
        end = (t + 1) * share
        for h in range(t * share, end - 2, 3):
            _three_dots(queries[h : h + 3], keys[low:high], out[h : h + 3, low:high])
        for h in range(end - share % 3, end):
            for s in range(low, high):
                out[h, s] = _dot(queries[h], keys[s, : queries.shape[1]])


@njit
def _mix_run(pattern, values, first, last, start, stop, out):
    """Sums of a run's values, weighted for T*R heads, ``(T*R, S), (S, stride) -> (T*R, d)``.

    Three of the R heads of a token read a value once.
    """
    tokens = first.shape[0]
    share = out.shape[0] // tokens
    out[:] = 0.0
    for t in range(tokens):
        low = max(start, first[t])
        high = min(stop, last[t])
        end = (t + 1) * share
        for h in range(t * share, end - 2, 3):
            _weigh_three(out[h : h + 3], pattern[h : h + 3, low:high], values[low:high])
        for h in range(end - share % 3, end):
            _weigh(out[h], pattern[h, low:high], values[low:high])


@njit
def _copy(row, out):
    for s in range(row.shape[0]):
        out[s] = row[s]


@njit
def _divide(row, power):
    for s in range(row.shape[0]):
        row[s] /= power[s]


@njit
def _place_row(row, power, bits):
    """Weights times the powers of V, in place, on a grid; False as `_attend`."""
    for s in range(row.shape[0]):
        row[s] *= power[s]
    return _round_row(row, bits)


@njit
def _add_up(parts, share, out):
    """Sums over runs of keys, ``(runs, G, T*R, d) -> (T, H, d)``, rounded once."""
    runs, groups, rows, width = parts.shape
    total = np.empty(width)
    for g in range(groups):
        for i in range(rows):
            total[:] = 0.0
            for run in range(runs):
                for j in range(width):
                    total[j] += parts[run, g, i, j]
            for j in range(width):
                out[i // share, g * share + i % share, j] = np.float32(total[j]) + np.float32(0.0)


_ATTEND = (
    "b1(f4[:,:,::1], f4[:,:,:], f4[:,:,:], i8[:], i8[:], f8, f8, i8, f8[::1], f4[:,:,::1],"
    " f8[:,:,:])"
)


@njit(_ATTEND, parallel=True, cache=True)
def _attend(q, k, v, first, last, scale, denominator, bits, table, out, weights):
    """Each query of ``(T, H, d)`` to its rows of ``(S, G, d)``; False where a grid is in doubt.

    The tasks of threads are runs of keys of one K/V head, for the R heads that share it: so each
    run is read once for all of them. Sums over keys are exact, and may be cut anywhere. Weights
    are written into `weights`, ``(H, T, S)``, unless that is empty.
    """
    tokens, heads, width = q.shape
    length, groups = k.shape[:2]
    share = heads // groups
    rows = tokens * share
    runs = (length + _RUN - 1) // _RUN
    queries = np.empty((groups, rows, width))
    for g in range(groups):
        if not _place_queries(q, g, share, scale, bits, queries[g]):
            return False
    powers = np.empty((groups, length))
    scores = np.empty((groups, rows, length))
    for i in prange(groups * runs):
        g = i // runs
        start = i % runs * _RUN
        stop = min(start + _RUN, length)
        _powers(_group(v, g), start, stop, width, powers[g])
        _score_run(queries[g], _group(k, g), first, last, start, stop, scores[g])
    decided = np.empty(groups * rows, np.bool_)
    for i in prange(groups * rows):
        g = i // rows
        t = i % rows // share
        row = scores[g, i % rows, first[t] : last[t]]
        _weights(row, denominator, table)
        if weights.shape[0] > 0:
            _copy(row, weights[g * share + i % share, t, first[t] : last[t]])
        power = powers[g, first[t] : last[t]]
        decided[i] = _place_row(row, power, bits)
        _divide(row, power)
    parts = np.empty((runs, groups, rows, width))
    for i in prange(groups * runs):
        g = i // runs
        start = i % runs * _RUN
        stop = min(start + _RUN, length)
        _mix_run(scores[g], _group(v, g), first, last, start, stop, parts[i % runs, g])
    _add_up(parts, share, out)
    return _all(decided)


@njit
def _divided(values, power, start, stop, panels):
    """Values of some keys ``(S, d)`` by their powers of two, in panels ``(columns, S, _PANEL)``."""
    for s in range(start, stop):
        for j in range(values.shape[1]):
            panels[j // _PANEL, s, j % _PANEL] = np.float64(values[s, j]) / power[s]


@njit
def _score_tokens(queries, keys, low, scores):
    """Queries ``(rows, d)`` by the keys from `low` on that have a column; keys lie in panels."""
    rows, width = queries.shape
    columns = scores.shape[1]
    for s in range(0, columns, _PANEL):
        w = keys[(low + s) // _PANEL].ctypes.data
        for r in range(0, rows, _TILE):
            x = queries[r].ctypes.data
            place = scores[r, s:].ctypes.data
            _product_tile(x, width, 1, w, _PANEL, place, columns, width, 1)


@njit
def _weigh_tokens(scores, first, last, low, powers, denominator, bits, table):
    """Scores ``(T*R, S)``, in place, to weights times the powers of V; False as `_attend`."""
    tokens = first.shape[0]
    share = scores.shape[0] // _TOKENS
    decided = True
    for i in range(tokens * share):
        t = i // share
        scores[i, : first[t] - low] = 0.0
        scores[i, last[t] - low :] = 0.0
        row = scores[i, first[t] - low : last[t] - low]
        _weights(row, denominator, table)
        decided &= _place_row(row, powers[first[t] : last[t]], bits)
    return decided


@njit
def _mix_tokens(pattern, values, low, high, z):
    """Weights ``(rows, S)`` by the values of keys from `low` on and before `high`, in panels."""
    for s in range(low, high, _RUN):
        some = min(_RUN, high - s)
        for p in range(values.shape[0]):
            w = values[p, s].ctypes.data
            for r in range(0, pattern.shape[0], _TILE):
                x = pattern[r, s - low :].ctypes.data
                place = z[r, p * _PANEL :].ctypes.data
                apart = pattern.shape[1]
                _product_tile(x, apart, 1, w, _PANEL, place, z.shape[1], some, s == low)


@njit
def _attend_tokens(q, keys, values, powers, first, last, scale, denominator, bits, table, out, g):
    """A few tokens' queries of K/V head g, into ``(T, R, d)``; False as `_attend`.

    Of all keys those count that any of the tokens sees, from the start of a panel on.
    """
    tokens, share, width = out.shape
    low = first[0] // _PANEL * _PANEL
    high = last[-1]
    columns = (high - low + _PANEL - 1) // _PANEL * _PANEL
    queries = np.zeros((_TOKENS * share, width))  # whole tiles, also where tokens are fewer
    scores = np.empty((_TOKENS * share, columns))
    z = np.empty((_TOKENS * share, values.shape[0] * _PANEL))
    decided = _place_queries(q, g, share, scale, bits, queries)
    _score_tokens(queries, keys, low, scores)
    decided &= _weigh_tokens(scores, first, last, low, powers, denominator, bits, table)
    _mix_tokens(scores, values, low, high, z)
    for t in range(tokens):
        for r in range(share):
            for j in range(width):
                out[t, r, j] = np.float32(z[t * share + r, j]) + np.float32(0.0)
    return decided


_ATTEND_MANY = (
    "b1(f4[:,:,::1], f4[:,:,:], f4[:,:,:], i8[:], i8[:], f8, f8, i8, f8[::1], f4[:,:,::1])"
)


@njit(_ATTEND_MANY, parallel=True, cache=True)
def _attend_many(q, k, v, first, last, scale, denominator, bits, table, out):
    """`_attend` of many queries, in tiles: those of a few tokens and one K/V head are a task.

    Keys and values are widened once. Weights times powers meet values divided by them: the terms
    of each sum are those of `weighted_sum`, and exact as they are.
    """
    tokens, heads, width = q.shape
    length, groups = k.shape[:2]
    share = heads // groups
    panels = (length + _PANEL - 1) // _PANEL
    keys = np.zeros((groups, panels, width, _PANEL))
    values = np.zeros((groups, (width + _PANEL - 1) // _PANEL, length, _PANEL))
    powers = np.empty((groups, length))
    for i in prange(groups * panels):
        g = i // panels
        start = i % panels * _PANEL
        stop = min(start + _PANEL, length)
        _widen(_group(k, g)[start:stop, :width], np.empty(0), keys[g, i % panels])
        _powers(_group(v, g), start, stop, width, powers[g])
        _divided(_group(v, g)[:, :width], powers[g], start, stop, values[g])
    blocks = (tokens + _TOKENS - 1) // _TOKENS
    decided = np.empty(groups * blocks, np.bool_)
    for i in prange(groups * blocks):
        g = i // blocks
        n = i % blocks
        # Late tokens see more keys: they come in turn with early ones, since each thread has a run.
        block = blocks - 1 - n // 2 if n % 2 else n // 2
        start = block * _TOKENS
        some = slice(start, min(start + _TOKENS, tokens))
        decided[i] = _attend_tokens(
            q[some],
            keys[g],
            values[g],
            powers[g],
            first[some],
            last[some],
            scale,
            denominator,
            bits,
            table,
            out[some, g * share : (g + 1) * share],
            g,
        )
    return _all(decided)


@njit("void(f4[:,::1], f4[:,::1], f8[::1], f8, f8)", cache=True)
def _rms_norm(x, out, weight, eps, finest):
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


@njit("void(f4[:,::1], f4[:,::1], f8)", cache=True)
def _settle(x, out, finest):
    for t in range(x.shape[0]):
        shift = _power_below(_largest(x[t])) * finest * ROUND
        for j in range(x.shape[1]):
            out[t, j] = np.float32(_to_grid(x[t, j], shift))


@njit
def _gated_rows(gate, up, out, gelu, table):
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


@njit("void(f4[:,::1], f4[:,::1], f4[:,::1], b1, f8[::1])", parallel=True, cache=True)
def _gated(gate, up, out, gelu, table):
    """`_gated_rows`, which takes longest of what lies between products: many on all threads."""
    if gate.shape[0] <= _ROWS:
        _gated_rows(gate, up, out, gelu, table)
    else:
        for i in prange((gate.shape[0] + _ROWS - 1) // _ROWS):
            rows = slice(i * _ROWS, (i + 1) * _ROWS)
            _gated_rows(gate[rows], up[rows], out[rows], gelu, table)


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
            out[n, j] = np.float32(_to_grid(w[n, j], shifts[n]))


@njit("b1(f8[:,:,::1], f8[:,::1], i8, f8[:,:,::1])", cache=True)
def _place(pattern, powers, bits, out):
    """Weights ``(G, R*T, S)`` on grids of which each key has a multiple; False as `_attend`."""
    decided = True
    for g in range(pattern.shape[0]):
        for t in range(pattern.shape[1]):
            row = out[g, t]
            _copy(pattern[g, t], row)
            decided &= _place_row(row, powers[g], bits)
            _divide(row, powers[g])
    return decided


announced.end()


def _rows(x: np.ndarray) -> np.ndarray:
    """``(..., K) -> (rows, K)``, contiguous, writable: what most kernels are compiled for."""
    return _packed(x).reshape(-1, x.shape[-1])


def _packed(x: np.ndarray) -> np.ndarray:
    """`x` itself where it is contiguous and can be written to, or else a copy that is."""
    return x if x.flags.carray else np.array(x, order="C")


def _can_be_pairs(weights: np.ndarray) -> bool:
    """Whether two bytes each can be read as pairs, the first number of which is the lower half."""
    return weights.shape[1] % 2 == 0 and sys.byteorder == "little"


def _as_read(weights: np.ndarray) -> np.ndarray:
    """Contiguous, and bfloat16 in pairs."""
    weights = np.ascontiguousarray(weights)
    return weights.view(np.uint32) if weights.dtype == np.uint16 else weights


def _are_alike(weight: Weight, other: Weight) -> bool:
    """Whether one kernel reads both."""
    tied = isinstance(weight, TiedWeight) or isinstance(other, TiedWeight)
    return weight.values.dtype == other.values.dtype and not tied


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
        """float32, or the upper halves of it as uint16, where that loses nothing and K is even."""
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
        if _is_bfloat16(values) and _can_be_pairs(values):
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
        largest = max([weight.largest for weight in weights])  # a bound for each
        values = [_as_read(weight.values) for weight in weights]
        with ONE_CALLER:
            if len(weights) == 2 and _are_alike(*weights):
                return _linear(x, values[0], values[1], bits, largest, outs[0], outs[1])
            decided = True
            for weight, matrix, out in zip(weights, values, outs, strict=True):
                if isinstance(weight, TiedWeight):
                    decided &= _linear_tied(x, matrix, weight.shifts, bits, largest, out)
                else:
                    nothing = matrix[:0]
                    decided &= _linear(x, matrix, nothing, bits, largest, out, out[:, :0])
            return decided

    def _many_rows(self, x: Inputs, weights: tuple[Weight, ...], outs: tuple[Outputs, ...]) -> bool:
        """The products in tiles; False where a row's grid is in doubt.

        With a cache's line between them rows do not take each other's place there.
        """
        rows = np.empty((-(-len(x) // _TILE) * _TILE, x.shape[1] + _LANES))
        rows[len(x) :] = 0.0  # whatever lay there might be slow to multiply
        largest = max(weight.largest for weight in weights)
        if not _round_rows(x, rows, self.significand - self.weight_bits, largest):
            return False
        for weight, out in zip(weights, outs, strict=True):
            shifts = weight.shifts if isinstance(weight, TiedWeight) else np.empty(0)
            with ONE_CALLER:
                _linear_many(rows, np.ascontiguousarray(weight.values), shifts, out)
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
        _settle(_rows(x), _rows(out), 2.0 ** (1 - self.kv_bits))
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
        _rms_norm(_rows(x), _rows(out), weight, eps, 2.0 ** (self.significand - 85))
        return out

    def rope(self, x: Heads, cos: Turns, sin: Turns) -> Heads:
        out = np.empty(x.shape, dtype=np.float32)
        _rope(_packed(x), cos, sin, out)
        return out

    def gated(self, gate: Features, up: Features, activation: str) -> Features:
        out = np.empty(gate.shape, dtype=np.float32)
        gelu = _GELU_BY_NAME[activation]
        with ONE_CALLER:
            _gated(_rows(gate), _rows(up), out, gelu, EXP_TABLE)
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
        """Few queries in one kernel, many in another; the rest as `Arithmetic`."""
        seen = None if watch.hooked else SeenKeys.by(sight)
        if seen is not None and seen.most <= self.context:
            seen.expect(q, k, v)
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
        if not _as_compiled(k, v):
            return False
        denominator = 2.0**-self.denominator_bits * ROUND
        bits = self.significand - self.kv_bits
        first = seen.first
        last = seen.last
        weights = weights[..., seen.all]
        q = _packed(q)
        with ONE_CALLER:
            return _attend(q, k, v, first, last, scale, denominator, bits, EXP_TABLE, out, weights)

    def _attend_many(
        self, q: Queries, k: Keys, v: Values, seen: SeenKeys, scale: float, out: HeadOutputs
    ) -> bool:
        """Attention into `out`; False where it is in doubt, or the arrays are not as compiled."""
        if seen.fewest < 1 or not _as_compiled(k, v):
            return False
        denominator = 2.0**-self.denominator_bits * ROUND
        bits = self.significand - self.kv_bits
        q = _packed(q)
        with ONE_CALLER:
            return _attend_many(
                q, k, v, seen.first, seen.last, scale, denominator, bits, EXP_TABLE, out
            )


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
        by_head = sight.key_positions.T if sight.per_head else sight.key_positions[None]
        last = _passed(by_head, sight.query_positions)
        first: np.ndarray | None = np.zeros(len(sight.query_positions), np.int64)
        if sight.window is not None:
            first = _passed(by_head, sight.query_positions - sight.window)
        if first is None or last is None:
            return None
        seen = slice(int(first[0]), int(last[-1]))  # positions ascend
        return cls(seen, first - seen.start, last - seen.start)

    @property
    def most(self) -> int:
        """How many keys one query sees at most."""
        return int((self.last - self.first).max())

    @property
    def fewest(self) -> int:
        """How many keys one query sees at least."""
        return int((self.last - self.first).min())

    def expect(self, q: Queries, k: Keys, v: Values) -> None:
        """Refuse arrays in which the keys are not: kernels read by address, and would go on."""
        alike = k.shape == v.shape and k.shape[2] == q.shape[2]
        if not alike or q.shape[1] % k.shape[1] or len(k) < self.all.stop:
            raise InputError(
                f"attention of queries {q.shape} has keys {k.shape} and values {v.shape}, expected "
                f"{self.all.stop} tokens or more of each, as their positions say, and heads alike"
            )


def _passed(key_positions: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
    """How many keys lie at a position or before it, ``(G, S), (T,) -> (T,)``.

    None where heads differ.
    """
    passed = key_positions[0].searchsorted(positions, "right")
    for others in key_positions[1:]:
        if (others.searchsorted(positions, "right") != passed).any():
            return None
    return passed


_GELU_BY_NAME = {"silu": False, "gelu_pytorch_tanh": True}


def _as_compiled(k: Keys, v: Values) -> bool:
    """Whether a row's numbers lie side by side, rows do not overlap, and all can be written to."""
    side_by_side = k.strides[2] == v.strides[2] == 4
    apart = min(k.strides[0], v.strides[0]) >= 4 * k.shape[2]
    return side_by_side and apart and k.flags.writeable and v.flags.writeable

"""A float32 whose rows are alone: one fixed order for every sum, in compiled kernels.

An output of a product is a sum of chains of fused multiply-adds, first to last, and the chains are
added first to last. The lanes of a vector and the cells of a tile are different outputs, so that
how rows are tiled touches no sum: a lone row and a row of 512 go through the same operations.
Weights are packed once, 32 outputs side by side; a tile of 8 rows by 32 outputs stays in registers
while a chain runs, or a quarter of it at a time where registers hold no more: see `numba_tile`.

Attention takes up to 32 queries of one K/V head at a time. They are the lanes of its scores, so
that keys are read where the cache has them; so are values, if a head fills whole panels. A score is
one chain over the elements of a head, an element of a weighted sum one chain over the keys: a key
that weighs 0 then changes nothing, at the start or at the end. What leaves a product or attention
has +0 added, and is never -0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from ..arithmetic import ACTIVATIONS, UNWATCHED, Float32, Sight, Watch, elementary
from ..arithmetic.base import gelu_argument
from ..arithmetic.exact import LONGEST
from ..arithmetic.room import Room
from ..arrays import (
    Array,
    Features,
    HeadOutputs,
    Heads,
    Inputs,
    Keys,
    Outputs,
    Pattern,
    Queries,
    Scores,
    Stream,
    TokenIds,
    Turns,
    Values,
)
from ..errors import ArithmeticRangeError
from .numba_announce import announced
from .numba_exact import ONE_CALLER, SeenKeys
from .numba_tile import chains

LANES = 16  # outputs in a vector
PANEL = 32  # outputs in registers
TILE = 8  # rows in registers
ROWS = 256  # that every panel meets in turn, while they stay in the second cache
BLOCK = 192  # inputs of a chain; 24 KiB of weights stay in the first cache
KEYS = 64  # keys of a chain before it is put aside; as many values stay in the first cache
RUN = 256  # scores that one loop goes over
FEW = 8  # rows; to wake the threads for so few takes longer than the work

_LN2_HIGH = np.float32(355 / 512)  # of few bits: a whole number times it is exact
_LN2_LOW = np.float32(math.log(2) - 355 / 512)
_PER_LN2 = np.float32(1 / math.log(2))
_TO_WHOLE = np.float32(1.5 * 2.0**23)  # adding it rounds to an integer, and leaves that in the bits
_TO_WHOLE_BITS = np.int32(_TO_WHOLE.view(np.int32))
_LOWEST = np.float32(-104)  # exp is 0 from there on
_HIGHEST = np.float32(89)  # and infinite from there on
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(n)) for n in range(2, 8))
_ZERO = np.float32(0)
_ONE = np.float32(1)
_GELU_CUBE = np.float32(0.044715)
_GELU = np.float32(math.sqrt(8 / math.pi))

GRID = 2.0**-42  # of a softmax's total: LONGEST weights of up to 1 add up to less than 2**63 of it
_TO_GRID = 1.5 * 2.0**52 * GRID  # adding it rounds to the grid, and leaves the multiple in the bits
_TO_GRID_BITS = np.int64(np.float64(_TO_GRID).view(np.int64))


def _fused(typing, a, b, c):
    """a * b + c, rounded once."""

    def code(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(*[types.float32] * 3), code


_fma: Any = intrinsic(_fused)
_product_tile = chains(TILE, LANES, PANEL // LANES, carried=False)
_product_row = chains(1, LANES, PANEL // LANES, carried=False)
_scores_of_32 = chains(TILE, LANES, 2, carried=True)  # keys by so many queries
_scores_of_8 = chains(TILE, 8, 1, carried=True)
_scores_of_4 = chains(TILE, 4, 1, carried=True)
_values_by_8 = chains(TILE, LANES, PANEL // LANES, carried=True)  # so many queries by values
_values_by_4 = chains(4, LANES, PANEL // LANES, carried=True)
WIDTHS = (4, 8, 32)  # queries that attention takes at a time

_ROWS = types.Array(types.float32, 2, "C")
_KEPT = types.Array(types.float32, 1, "C", readonly=True)  # a view of the file, perhaps
announced.begin()


@njit("void(f4[:,:,::1], f4[:,:,:,::1], i8, f4[:,:,::1])", parallel=True, cache=True)
def _product(x, packed, block, out):
    groups, rows, k = x.shape
    panels = packed.shape[1]
    stride = out.shape[2]
    runs = (rows + ROWS - 1) // ROWS
    for i in prange(groups * runs * panels):
        g = i // panels // runs
        first = i // panels % runs * ROWS
        last = min(first + ROWS, rows)
        p = i % panels
        for s in range(0, k, block):
            w = packed[g, p, s].ctypes.data
            width = min(block, k - s)
            for t in range(first, last - last % TILE, TILE):
                place = out[g, t:, p * PANEL :].ctypes.data
                _product_tile(x[g, t, s:].ctypes.data, k, 1, w, PANEL, place, stride, width, s == 0)
            for t in range(last - last % TILE, last):
                place = out[g, t:, p * PANEL :].ctypes.data
                _product_row(x[g, t, s:].ctypes.data, k, 1, w, PANEL, place, stride, width, s == 0)


@njit
def _power_of_2(n):
    """2**n, where that is a normal number."""
    return np.int32((n + 127) << 23).view(np.float32)


@njit
def _exp(x):
    """exp(x) = 2**n exp(r), |r| <= ln(2) / 2, by Taylor's polynomial to r**7; NaN stays NaN.

    Within 1.1 units in the last place, if that is not below the normal numbers: at worst, below 1,
    0.5 for the last rounding, 0.25 for that of r, 0.17 for the one before the last, 0.03 for those
    before it, and 0.12 for the rest of Taylor's series.
    """
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    shifted = x * _PER_LN2 + _TO_WHOLE
    n = shifted - _TO_WHOLE
    power = np.int32(np.float32(shifted).view(np.int32) - _TO_WHOLE_BITS)  # n, where x is a number
    r = _fma(-n, _LN2_LOW, _fma(-n, _LN2_HIGH, x))
    p = _fma(_fma(_C7, r, _C6), r, _C5)
    p = _fma(_fma(_fma(p, r, _C4), r, _C3), r, _C2)
    p = _fma(_fma(p, r, _ONE), r, _ONE)
    half = np.int32(power >> 1)  # 2**n in two factors, of which each is a normal number
    return p * _power_of_2(half) * _power_of_2(power - half)


@njit
def _in_grid(weight):
    """How many times GRID a softmax's exponential is: integers add up alike in any order."""
    return np.float64(np.float64(weight) + _TO_GRID).view(np.int64) - _TO_GRID_BITS


@njit(error_model="numpy")
def _inverse(total):
    """What a softmax's exponentials are multiplied by, from their total in GRIDs."""
    return np.float32(1.0 / (np.float64(total) * GRID))


@njit("void(f4[::1])", cache=True)
def _exponentials(x):
    for j in range(x.shape[0]):
        x[j] = _exp(x[j])


@njit("void(f4[:,::1])", parallel=True, cache=True)
def _softmax(scores):
    """Softmax of each row, in place."""
    for i in prange(scores.shape[0]):
        row = scores[i]
        top = np.float32(-np.inf)
        total = np.int64(0)
        for s in range(row.shape[0]):
            top = row[s] if row[s] > top else top
        for s in range(row.shape[0]):
            row[s] = _exp(row[s] - top)
        for s in range(row.shape[0]):
            total += _in_grid(row[s])
        inverse = _inverse(total)
        for s in range(row.shape[0]):
            row[s] *= inverse


@njit
def _repeat(x, width):
    """Fill x with its first `width` numbers, again and again; both lengths are powers of two."""
    while width < x.shape[0]:
        x[width : 2 * width] = x[:width]
        width *= 2


@njit
def _tops(flat, width):
    """The largest number of each column of ``(S, width)``, repeated."""
    top = np.full(RUN, -np.inf, np.float32)
    for start in range(0, flat.shape[0], RUN):
        run = flat[start : start + RUN]
        for c in range(run.shape[0]):
            top[c] = run[c] if run[c] > top[c] else top[c]
    half = RUN // 2
    while half >= width:
        for c in range(half):
            top[c] = top[c + half] if top[c + half] > top[c] else top[c]
        half //= 2
    _repeat(top, width)
    return top


@njit
def _softmax_of_columns(scores):
    """`_softmax` of each column of ``(S, W)``, in place.

    Loops over W numbers would be too short for the compiler. They go over many rows at once, so
    that a column has several totals until the end, each a sum of integers.
    """
    width = scores.shape[1]
    flat = scores.reshape(-1)
    top = _tops(flat, width)
    total = np.zeros(RUN, np.int64)
    for start in range(0, flat.shape[0], RUN):
        run = flat[start : start + RUN]
        for c in range(run.shape[0]):
            run[c] = _exp(run[c] - top[c])
        for c in range(run.shape[0]):
            total[c] += _in_grid(run[c])
    half = RUN // 2
    while half >= width:
        for c in range(half):
            total[c] += total[c + half]
        half //= 2
    inverse = np.empty(RUN, np.float32)
    for c in range(width):
        inverse[c] = _inverse(total[c])
    _repeat(inverse, width)
    for start in range(0, flat.shape[0], RUN):
        run = flat[start : start + RUN]
        for c in range(run.shape[0]):
            run[c] *= inverse[c]


@njit
def _score(keys, queries, scores):
    """Keys ``(S, d)`` by queries ``(d, W)``: scores ``(S, W)``, and of zeros up to a whole tile."""
    length = keys.shape[0]
    head_dim, width = queries.shape
    whole = length - length % TILE
    rest = np.zeros((TILE, head_dim), np.float32)
    rest[: length - whole] = keys[whole:]
    w = queries.ctypes.data
    for s in range(0, scores.shape[0], TILE):
        out = scores[s].ctypes.data
        if s < whole:
            x = keys[s].ctypes.data
            apart = keys.strides[0] // 4
        else:
            x = rest.ctypes.data
            apart = head_dim
        if width == 32:
            _scores_of_32(x, apart, 1, w, 32, out, 32, head_dim, 1)
        elif width == 8:
            _scores_of_8(x, apart, 1, w, 8, out, 8, head_dim, 1)
        else:
            _scores_of_4(x, apart, 1, w, 4, out, 4, head_dim, 1)


@njit
def _weigh(weights, values, z):
    """``weights (S, W), values (S, d) -> z (W, d)``, d whole panels, some keys at a time."""
    length, width = weights.shape
    head_dim = z.shape[1]
    apart = values.strides[0] // 4
    for s in range(0, length, KEYS):
        some = min(KEYS, length - s)
        for c in range(0, head_dim, PANEL):
            v = values[s, c:].ctypes.data
            if width == 4:
                x = weights[s].ctypes.data
                out = z[0, c:].ctypes.data
                _values_by_4(x, 1, 4, v, apart, out, head_dim, some, s == 0)
            else:
                for r in range(0, width, TILE):
                    x = weights[s, r:].ctypes.data
                    out = z[r, c:].ctypes.data
                    _values_by_8(x, 1, width, v, apart, out, head_dim, some, s == 0)


@njit
def _attend_some(q, k, v, g, start, width, first, last, scale, out, weights):
    """Up to `width` queries of K/V head `g`, to the keys from the first seen to the last.

    Query `start` and those that follow: number n is of token n // R, and head n % R of the R.
    """
    tokens, heads, head_dim = q.shape
    share = heads // k.shape[1]
    count = min(width, tokens * share - start)
    low = first[start // share]  # both ascend
    high = last[(start + count - 1) // share]
    length = high - low
    queries = np.zeros((head_dim, width), np.float32)
    for i in range(count):
        t = (start + i) // share
        h = g * share + (start + i) % share
        row = q[t, h]
        for j in range(head_dim):
            queries[j, i] = row[j] * scale
    scores = np.empty(((length + TILE - 1) // TILE * TILE, width), np.float32)
    _score(k[low:high, g], queries, scores)
    scores[length:] = -np.inf
    for i in range(count):
        t = (start + i) // share
        for s in range(low, first[t]):
            scores[s - low, i] = -np.inf
        for s in range(last[t], high):
            scores[s - low, i] = -np.inf
    _softmax_of_columns(scores)
    z = np.empty((width, v.shape[2]), np.float32)
    _weigh(scores[:length], v[low:high, g], z)
    for i in range(count):
        t = (start + i) // share
        h = g * share + (start + i) % share
        row = out[t, h]
        for j in range(head_dim):
            row[j] = z[i, j] + _ZERO
        if weights.shape[0] > 0:
            weights[h, t, low:high] = scores[:length, i]


_ATTEND = "void(f4[:,:,:], f4[:,:,:], f4[:,:,:], i8[:], i8[:], i8, f4, f4[:,:,:], f4[:,:,:])"


@njit(_ATTEND, parallel=True, cache=True)
def _attend(q, k, v, first, last, width, scale, out, weights):
    """Each query of ``(T, H, d)`` to the keys from `first` on and before `last`, both ``(T,)``.

    Its weights are written into `weights`, ``(H, T, S)``, unless that is empty.
    """
    groups = k.shape[1]
    queries = q.shape[0] * q.shape[1] // groups
    blocks = (queries + width - 1) // width
    for i in prange(groups * blocks):
        g = i // blocks
        n = i % blocks
        # Late blocks see more keys: they come in turn with early ones, since each thread has a run.
        block = blocks - 1 - n // 2 if n % 2 else n // 2
        _attend_some(q, k, v, g, block * width, width, first, last, scale, out, weights)


@njit
def _mean_square(x):
    """In float64: the sums of every 16th square, added first to last, and rounded once."""
    sums = np.zeros(LANES)
    for start in range(0, x.shape[0], LANES):
        some = x[start : start + LANES]
        for j in range(some.shape[0]):
            sums[j] += np.float64(some[j]) * np.float64(some[j])
    total = 0.0
    for j in range(LANES):
        total += sums[j]
    return np.float32(total / x.shape[0])


@njit("void(f4[:,::1], f4[::1])", cache=True)
def _mean_squares(x, out):
    for t in range(x.shape[0]):
        out[t] = _mean_square(x[t])


@njit(error_model="numpy")  # a quotient by 0 is no error
def _norm_row(x, weight, eps, out):
    root = np.sqrt(_mean_square(x) + eps)
    for j in range(x.shape[0]):
        out[j] = x[j] / root * weight[j]


@njit(types.void(_ROWS, _KEPT, types.float32, _ROWS), cache=True)
def _norm_few(x, weight, eps, out):
    for t in range(x.shape[0]):
        _norm_row(x[t], weight, eps, out[t])


@njit(types.void(_ROWS, _KEPT, types.float32, _ROWS), parallel=True, cache=True)
def _norm_many(x, weight, eps, out):
    for t in prange(x.shape[0]):
        _norm_row(x[t], weight, eps, out[t])


@njit
def _turn(x, cos, sin, out):
    """The heads of one token, ``(heads, d)``, by its angles ``(d,)``."""
    half = x.shape[1] // 2
    for h in range(x.shape[0]):
        for j in range(half):
            out[h, j] = x[h, j + half] * sin[j] + x[h, j] * cos[j]
            out[h, j + half] = x[h, j] * sin[j + half] + x[h, j + half] * cos[j + half]


_TURN = "void(f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,:,::1])"


@njit(_TURN, cache=True)
def _turn_few(x, cos, sin, out):
    for t in range(x.shape[0]):
        _turn(x[t], cos[t, 0], sin[t, 0], out[t])


@njit(_TURN, parallel=True, cache=True)
def _turn_many(x, cos, sin, out):
    for t in prange(x.shape[0]):
        _turn(x[t], cos[t, 0], sin[t, 0], out[t])


@njit(error_model="numpy")  # a quotient by 0 is no error
def _gate_row(gate, up, gelu, out):
    if gelu:
        for j in range(gate.shape[0]):
            x = gate[j]
            y = (x * x * _GELU_CUBE + _ONE) * x * _GELU
            out[j] = x / (_exp(-y) + _ONE) * up[j]
    else:
        for j in range(gate.shape[0]):
            out[j] = gate[j] / (_exp(-gate[j]) + _ONE) * up[j]


@njit("void(f4[:,::1], f4[:,::1], b1, f4[:,::1])", cache=True)
def _gate_few(gate, up, gelu, out):
    for t in range(gate.shape[0]):
        _gate_row(gate[t], up[t], gelu, out[t])


@njit("void(f4[:,::1], f4[:,::1], b1, f4[:,::1])", parallel=True, cache=True)
def _gate_many(gate, up, gelu, out):
    for t in prange(gate.shape[0]):
        _gate_row(gate[t], up[t], gelu, out[t])


announced.end()


@dataclass(frozen=True)
class Packed:
    """A weight matrix as the tiles read it."""

    values: np.ndarray  # (panels, K, PANEL)
    outputs: int  # N; what is left of the last panel is zero

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)"""
        return self.outputs, self.values.shape[1]


def pack(matrices: np.ndarray) -> np.ndarray:
    """``(G, N, K) -> (G, panels, K, PANEL)``, with zeros after the last output."""
    groups, outputs, inputs = matrices.shape
    packed = np.empty((groups, -(-outputs // PANEL), inputs, PANEL), np.float32)
    for matrix, into in zip(matrices, packed, strict=True):
        pack_into(into, matrix)
    return packed


def pack_into(packed: np.ndarray, matrix: np.ndarray) -> None:
    """``(N, K)`` into ``(panels, K, PANEL)``."""
    outputs, inputs = matrix.shape
    whole = outputs // PANEL
    packed[:whole] = matrix[: whole * PANEL].reshape(whole, PANEL, inputs).swapaxes(1, 2)
    rest = matrix[whole * PANEL :].T
    packed[whole:, :, : rest.shape[1]] = rest
    packed[whole:, :, rest.shape[1] :] = 0.0


def as_compiled(x: np.ndarray) -> np.ndarray:
    """`x` itself where it is contiguous float32 and can be written to, or else a copy that is."""
    if x.flags.carray and x.dtype == np.float32:
        return x
    return np.array(x, np.float32, order="C")


def with_rows(x: np.ndarray) -> np.ndarray:
    """`x` itself where it is as compiled but for what lies between rows, or else a copy that is."""
    usable = x.flags.writeable and x.flags.aligned and x.dtype == np.float32
    return x if usable and x.strides[-1] == x.itemsize else np.array(x, np.float32, order="C")


def product(x: np.ndarray, packed: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """``(G, T, K), packed (G, N, K) -> (G, T, N)``, N rounded up to a whole panel."""
    out = np.empty((*x.shape[:2], packed.shape[1] * PANEL), np.float32)
    with ONE_CALLER:
        _product(as_compiled(x), packed, block, out)
    return out


def expect_countable(keys: int) -> None:
    """Refuse more weights than 63 bits can add up."""
    if keys > LONGEST:
        raise ArithmeticRangeError(f"{keys} tokens to attend to, expected at most {LONGEST}")


def by_rows(few: Callable[..., None], many: Callable[..., None], rows: int, *args: Any) -> None:
    """A kernel for few rows, or the same in threads."""
    if rows <= FEW:
        few(*args)
        return
    with ONE_CALLER:
        many(*args)


class NumbaFloat32(Float32):
    """`Float32` whose bits do not depend on batch, chunk, cache or threads, on one machine.

    Another machine, or another Numba, may give others: see `docs/backends.md`.
    """

    looks_up_in_matrices = True

    def __init__(self) -> None:
        super().__init__()
        self._room = Room()

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Packed:
        matrix = np.asarray(matrix)
        outputs, inputs = matrix.shape
        values = self._room.empty((-(-outputs // PANEL), inputs, PANEL), np.float32)
        pack_into(values, matrix)
        return Packed(values, outputs)

    def linear(self, x: Inputs, weight: Packed) -> Outputs:
        packed = np.ascontiguousarray(weight.values)
        return product(x[None], packed[None])[0, :, : weight.outputs]

    def lookup(self, table: Packed | Array, ids: TokenIds) -> Stream:
        if not isinstance(table, Packed):
            return super().lookup(table, ids)
        ids = np.asarray(ids)
        return table.values[ids // PANEL, :, ids % PANEL]

    def mean_square(self, x: Array) -> Array:
        out = np.empty((*x.shape[:-1], 1), np.float32)
        rows = as_compiled(x).reshape(-1, x.shape[-1])
        _mean_squares(rows, out.reshape(-1))
        return out

    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        tokens, heads, head_dim = q.shape
        length, groups = k.shape[:2]
        q = (q * scale).reshape(tokens, groups, -1, head_dim).transpose(1, 2, 0, 3)
        single_chain = head_dim
        scores = product(q.reshape(groups, -1, head_dim), pack(k.swapaxes(0, 1)), single_chain)
        return scores[..., :length].reshape(heads, tokens, length)

    def softmax(self, scores: Scores) -> Pattern:
        expect_countable(scores.shape[-1])
        pattern = np.array(scores, np.float32, order="C")
        with ONE_CALLER:
            _softmax(pattern.reshape(-1, pattern.shape[-1]))
        return pattern

    def weighted_sum(self, pattern: Pattern, v: Values) -> HeadOutputs:
        heads, tokens, length = pattern.shape
        groups, head_dim = v.shape[1:]
        rows = np.ascontiguousarray(pattern).reshape(groups, -1, length)
        single_chain = max(1, length)  # a key of weight 0 then changes nothing
        z = product(rows, pack(v.transpose(1, 2, 0)), single_chain)[..., :head_dim]
        return z.reshape(heads, tokens, head_dim).swapaxes(0, 1)

    def exp(self, x: Array) -> Array:
        out = np.array(x, np.float32, order="C")
        _exponentials(out.reshape(-1))
        return out

    def sin(self, x: Array) -> Array:
        return elementary.sin(x).astype(np.float32)

    def cos(self, x: Array) -> Array:
        return elementary.cos(x).astype(np.float32)

    # Parts of a block, done whole

    def rms_norm(self, x: Array, weight: np.ndarray, eps: float) -> Array:
        out = np.empty(x.shape, np.float32)
        x = as_compiled(x).reshape(-1, x.shape[-1])
        weight = np.ascontiguousarray(weight, np.float32)
        by_rows(_norm_few, _norm_many, len(x), x, weight, np.float32(eps), out.reshape(x.shape))
        return out

    def rope(self, x: Heads, cos: Turns, sin: Turns) -> Heads:
        out = np.empty(x.shape, np.float32)
        turns = as_compiled(cos), as_compiled(sin)
        by_rows(_turn_few, _turn_many, len(x), as_compiled(x), *turns, out)
        return out

    def gated(self, gate: Features, up: Features, activation: str) -> Features:
        out = np.empty(gate.shape, np.float32)
        gelu = ACTIVATIONS[activation] is gelu_argument
        by_rows(_gate_few, _gate_many, len(gate), as_compiled(gate), as_compiled(up), gelu, out)
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
        """`Arithmetic.attention` in one kernel, but for hooks and heads of unlike sight.

        Who observes does so every `query_block` queries, whose weights alone are then held.
        """
        seen = None if watch.hooked else SeenKeys.by(sight)
        if seen is None or seen.fewest < 1:
            return super().attention(q, k, v, sight, scale, watch)
        seen.expect(q, k, v)
        expect_countable(seen.most)
        tokens, heads, head_dim = q.shape
        first = seen.first
        last = seen.last
        beyond = -head_dim % PANEL
        values = v[seen.all]
        values = np.pad(values, ((0, 0), (0, 0), (0, beyond))) if beyond else values
        q = with_rows(q)
        keys = with_rows(k[seen.all])
        values = with_rows(values)
        out = np.empty(q.shape, np.float32)
        step = tokens if watch.observe is None else self.query_block
        for start in range(0, tokens, step):
            some = slice(start, min(start + step, tokens))
            rows = (some.stop - start) * heads // k.shape[1]
            width = next((width for width in WIDTHS if rows <= width), WIDTHS[-1])
            watched = heads if watch.observe is not None else 0
            before = seen.all.start  # keys that none of the call's queries sees
            shape = (watched, some.stop - start, before + last[some][-1])
            weights = np.zeros(shape, np.float32)
            with ONE_CALLER:
                _attend(
                    q[some],
                    keys,
                    values,
                    first[some],
                    last[some],
                    width,
                    np.float32(scale),
                    out[some],
                    weights[..., before:],
                )
            if watch.observe is not None:
                watch.observe(sight.query_positions[some], weights)
        return out

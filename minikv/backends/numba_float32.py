"""A float32 whose rows are alone: one fixed order for every sum, in compiled kernels.

An output of a product is a sum of chains of fused multiply-adds, first to last, and the chains are
added first to last. The lanes of a vector and the cells of a tile are different outputs, so that
how rows are tiled touches no sum: a lone row and a row of 512 go through the same operations.
Weights are packed once, 32 outputs side by side; a tile of 8 rows by 32 outputs stays in registers
while a chain runs. Numba has no vectors: that loop is written in LLVM's language.

Scores are such products too, whose outputs are keys, and so are weighted sums, whose outputs are
the elements of a value, in a single chain: a key that weighs 0 then changes nothing, at the start
or at the end. A chain's -0 becomes +0 where it is added to the +0 that every output starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from ..arithmetic import Float32, elementary
from ..arithmetic.room import Room
from ..arrays import Array, HeadOutputs, Inputs, Keys, Outputs, Pattern, Queries, Scores, Values
from .numba_announce import announced
from .numba_exact import EXP_TABLE, ONE_CALLER, exp_in_place

LANES = 16  # outputs in a vector
PANEL = 32  # outputs in registers
TILE = 8  # rows in registers
BLOCK = 192  # inputs of a chain; 24 KiB of weights stay in the first cache


def _chains(rows: int) -> Callable[..., None]:
    """A function that sums ``x (K, rows)`` by ``w (K, PANEL)`` into ``out``, all addresses."""

    @intrinsic
    def chains(typing, x, w, out, k, stride):
        def code(context, b, signature, args):
            x, w, out = (b.inttoptr(a, ir.FloatType().as_pointer()) for a in args[:3])
            k, stride = args[3:]
            index = ir.IntType(64)
            vector = ir.VectorType(ir.FloatType(), LANES)
            zero = ir.Constant(vector, None)
            spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
            kind = ir.FunctionType(vector, [vector] * 3)
            fma = get_or_insert_function(b.module, kind, f"llvm.fma.v{LANES}f32")
            cells = [(r, c) for r in range(rows) for c in range(0, PANEL, LANES)]

            def place(base, row, width, column):
                return b.gep(base, [b.add(b.mul(row, width), index(column))])

            def vectors(pointer):
                return b.bitcast(pointer, vector.as_pointer())

            before = b.block
            loop = b.append_basic_block()
            after = b.append_basic_block()
            b.branch(loop)
            b.position_at_end(loop)
            i = b.phi(index)
            sums = {cell: b.phi(vector) for cell in cells}
            new = {}
            row = {c: b.load(vectors(place(w, i, index(PANEL), c)), align=4) for _, c in cells}
            for r in range(rows):
                one = b.insert_element(zero, b.load(place(x, i, index(rows), r)), ir.IntType(32)(0))
                one = b.shuffle_vector(one, one, spread)
                for c in row:
                    new[r, c] = b.call(fma, [one, row[c], sums[r, c]])
            following = b.add(i, index(1))
            b.cbranch(b.icmp_signed("<", following, k), loop, after)
            carried = [(i, index(0), following), *((sums[cell], zero, new[cell]) for cell in cells)]
            for phi, start, value in carried:
                phi.add_incoming(start, before)
                phi.add_incoming(value, loop)
            b.position_at_end(after)
            for r, c in cells:
                cell = vectors(place(out, index(r), stride, c))
                b.store(b.fadd(b.load(cell, align=4), new[r, c]), cell, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), code

    return chains


_tile, _row = _chains(TILE), _chains(1)
announced.begin()


@njit("void(f4[:,:,::1], f4[:,:,:,::1], i8, f4[:,:,::1])", parallel=True, cache=True)
def _product(x, packed, block, out):
    groups, rows, k = x.shape
    whole = rows // TILE
    panels = packed.shape[1]
    stride = out.shape[2]
    tiles = np.empty((groups * whole, k, TILE), np.float32)
    for i in prange(groups * whole):
        start = i % whole * TILE
        tiles[i] = x[i // whole, start : start + TILE].T
    for i in prange(groups * panels):
        g, p = i // panels, i % panels
        for s in range(0, k, block):
            w, width = packed[g, p, s].ctypes.data, min(block, k - s)
            for r in range(whole):
                place = out[g, r * TILE :, p * PANEL :].ctypes.data
                _tile(tiles[g * whole + r, s].ctypes.data, w, place, width, stride)
            for t in range(whole * TILE, rows):
                place = out[g, t:, p * PANEL :].ctypes.data
                _row(x[g, t, s:].ctypes.data, w, place, width, stride)


@njit("void(f4[::1], f8[::1])", cache=True)
def _exponentials(x, table):
    wide = x.astype(np.float64)
    exp_in_place(wide, table)
    for j in range(x.shape[0]):
        if x[j] == x[j]:  # NaN stays
            x[j] = np.float32(wide[j])


@njit("void(f4[:,::1], f8[::1])", parallel=True, cache=True)
def _softmax(scores, table):
    for i in prange(scores.shape[0]):
        row = scores[i]
        top = np.float32(-np.inf)
        total = 0.0
        for s in range(row.shape[0]):
            top = max(top, row[s])
        for s in range(row.shape[0]):
            row[s] -= top
        _exponentials(row, table)
        for s in range(row.shape[0]):
            total += row[s]
        for s in range(row.shape[0]):
            row[s] = np.float32(row[s] / total)


@njit("void(f4[:,::1], f4[::1])", cache=True)
def _mean_square(x, out):
    for t in range(x.shape[0]):
        total = 0.0
        for j in range(x.shape[1]):
            total += np.float64(x[t, j]) * np.float64(x[t, j])
        out[t] = np.float32(total / x.shape[1])


announced.end()


@dataclass(frozen=True)
class Packed:
    """A weight matrix as the tiles read it."""

    values: np.ndarray  # (panels, K, PANEL)
    outputs: int  # N; what is left of the last panel is zero


def pack(matrices: np.ndarray) -> np.ndarray:
    """``(G, N, K) -> (G, panels, K, PANEL)``, with zeros after the last output."""
    groups, outputs, inputs = matrices.shape
    panels = -(-outputs // PANEL)
    whole = outputs // PANEL
    packed = np.zeros((groups, panels, inputs, PANEL), np.float32)
    full = matrices[:, : whole * PANEL].reshape(groups, whole, PANEL, inputs)
    packed[:, :whole] = full.swapaxes(2, 3)
    if whole < panels:
        rest = matrices[:, whole * PANEL :]
        packed[:, -1, :, : rest.shape[1]] = rest.swapaxes(1, 2)
    return packed


def as_compiled(x: np.ndarray) -> np.ndarray:
    """`x` itself where it is contiguous float32 and can be written to, or else a copy that is."""
    if x.flags.carray and x.dtype == np.float32:
        return x
    return np.array(x, np.float32, order="C")


def product(x: np.ndarray, packed: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """``(G, T, K), packed (G, N, K) -> (G, T, N)``, N rounded up to a whole panel."""
    out = np.zeros((*x.shape[:2], packed.shape[1] * PANEL), np.float32)
    with ONE_CALLER:
        _product(as_compiled(x), packed, block, out)
    return out


class NumbaFloat32(Float32):
    """`Float32` whose bits do not depend on batch, chunk, cache or threads, on one machine.

    Another machine, or another Numba, may give others: see `docs/backends.md`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room = Room()

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Packed:
        packed = pack(np.asarray(matrix)[None])[0]
        values = self._room.empty(packed.shape, np.float32)
        values[:] = packed
        return Packed(values, len(matrix))

    def linear(self, x: Inputs, weight: Packed) -> Outputs:
        packed = np.ascontiguousarray(weight.values)
        return product(x[None], packed[None])[0, :, : weight.outputs]

    def mean_square(self, x: Array) -> Array:
        out = np.empty((*x.shape[:-1], 1), np.float32)
        rows = as_compiled(x).reshape(-1, x.shape[-1])
        _mean_square(rows, out.reshape(-1))
        return out

    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        tokens, heads, head_dim = q.shape
        length, groups = k.shape[:2]
        q = (q * scale).reshape(tokens, groups, -1, head_dim).transpose(1, 2, 0, 3)
        scores = product(q.reshape(groups, -1, head_dim), pack(k.swapaxes(0, 1)))
        return scores[..., :length].reshape(heads, tokens, length)

    def softmax(self, scores: Scores) -> Pattern:
        pattern = np.array(scores, order="C")
        with ONE_CALLER:
            _softmax(pattern.reshape(-1, pattern.shape[-1]), EXP_TABLE)
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
        _exponentials(out.reshape(-1), EXP_TABLE)
        return out

    def sin(self, x: Array) -> Array:
        return elementary.sin(x).astype(np.float32)

    def cos(self, x: Array) -> Array:
        return elementary.cos(x).astype(np.float32)

"""A tile of a product: sums that stay in registers while they grow, written in LLVM's language.

Numba has no vectors. A sum is a chain of fused multiply-adds, first to last; the lanes of a vector
and the cells of a tile are different sums, so that how a product is cut into tiles touches none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.cpu import CPUContext
from numba.extending import intrinsic


def bytes_held(context: CPUContext) -> int:
    """How many bytes of sums registers hold, by the instructions that are compiled for."""
    features = context.codegen().magic_tuple()[2]
    return 1024 if "+avx512f" in features else 256  # of 2,048; of 512 in AVX2 and in NEON


def in_registers(rows: int, columns: int, vectors: int) -> Iterator[list[tuple[int, int]]]:
    """The cells of ``(rows, columns)`` in tiles of at most so many vectors, and of 1 at least."""
    width = min(columns, max(1, vectors // rows))
    height = min(rows, max(1, vectors // width))
    for r in range(0, rows, height):
        for c in range(0, columns, width):
            yield [
                (row, column)
                for row in range(r, min(r + height, rows))
                for column in range(c, min(c + width, columns))
            ]


def chains(
    rows: int, lanes: int, vectors: int, carried: bool, itemsize: int = 4
) -> Callable[..., None]:
    """A function that adds sums of ``x (rows, k)`` by ``w (k, vectors * lanes)`` to `out`.

    Arrays are addresses of numbers of `itemsize` bytes, each with how many lie between its rows;
    `step` is that between the elements of a row of x. A chain starts at 0 and is added to `out`,
    or, `carried`, starts from what `out` holds; if that is `fresh`, `out` counts as 0.
    """
    number, suffix = {4: (ir.FloatType(), "f32"), 8: (ir.DoubleType(), "f64")}[itemsize]

    @intrinsic
    def added(typing, x, apart, step, w, width, out, stride, k, fresh):
        def code(context, b, signature, args):
            x, apart, step, w, width, out, stride, k, fresh = args
            x, w, out = (b.inttoptr(a, number.as_pointer()) for a in (x, w, out))
            index = ir.IntType(64)
            vector = ir.VectorType(number, lanes)
            zero = ir.Constant(vector, None)
            spread = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
            kind = ir.FunctionType(vector, [vector] * 3)
            fma = get_or_insert_function(b.module, kind, f"llvm.fma.v{lanes}{suffix}")
            is_fresh = b.icmp_signed("!=", fresh, index(0))

            def vectors_at(base, row, between, column):
                place = b.add(b.mul(row, between), index(column * lanes))
                return b.bitcast(b.gep(base, [place]), vector.as_pointer())

            def held(r, c):
                there = b.load(vectors_at(out, index(r), stride, c), align=itemsize)
                return b.select(is_fresh, zero, there)

            def spread_out(i, r):
                place = b.add(b.mul(index(r), apart), b.mul(i, step))
                one = b.insert_element(zero, b.load(b.gep(x, [place])), ir.IntType(32)(0))
                return b.shuffle_vector(one, one, spread)

            def add_up(cells):
                starts = {cell: held(*cell) if carried else zero for cell in cells}
                before = b.block
                loop = b.append_basic_block()
                after = b.append_basic_block()
                b.branch(loop)
                b.position_at_end(loop)
                i = b.phi(index)
                sums = {cell: b.phi(vector) for cell in cells}
                columns = dict.fromkeys(c for _, c in cells)
                row = {c: b.load(vectors_at(w, i, width, c), align=itemsize) for c in columns}
                ones = {r: spread_out(i, r) for r in dict.fromkeys(r for r, _ in cells)}
                new = {(r, c): b.call(fma, [ones[r], row[c], sums[r, c]]) for r, c in cells}
                following = b.add(i, index(1))
                b.cbranch(b.icmp_signed("<", following, k), loop, after)
                carry = [(i, index(0), following)]
                carry += [(sums[cell], starts[cell], new[cell]) for cell in cells]
                for phi, start, value in carry:
                    phi.add_incoming(start, before)
                    phi.add_incoming(value, loop)
                b.position_at_end(after)
                for r, c in cells:
                    value = new[r, c] if carried else b.fadd(held(r, c), new[r, c])
                    b.store(value, vectors_at(out, index(r), stride, c), align=itemsize)

            for cells in in_registers(rows, vectors, bytes_held(context) // (lanes * itemsize)):
                add_up(cells)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), code

    return added

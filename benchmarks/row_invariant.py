"""A float32 product whose rows do not depend on how many there are, beside NumPy's BLAS.

    python -m benchmarks.row_invariant    # needs  pip install "minikv[numba]" threadpoolctl

Every output is a sum of chains of fused multiply-adds, 192 inputs each, first to last, and the
chains are added first to last. The lanes of a vector and the cells of a tile are different outputs,
so that how rows are tiled touches no sum: a lone row and a row of 512 go through the same
operations. Weights are packed once, 32 outputs side by side; a tile of 8 rows by 32 outputs stays
in registers while a chain runs. Numba has no vectors: that loop is written in LLVM's language.

Random matrices of SmolLM2-135M's shapes, 30 blocks. First the bits are compared, ours and, as a
control, those of BLAS; then the two take turns, a turn being one call with every matrix. On one
thread the clock counts processor time, which other programs disturb less; on two, wall time.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

import minikv.backends.numba  # noqa: F401  lets OpenMP's threads sleep while BLAS works
from minikv.experiments import machine

LANES, PANEL, TILE = 16, 32, 8  # outputs in a vector, outputs and rows in registers
BLOCK = 192  # inputs of a chain; 24 KiB of weights stay in the first cache
SHAPES = {  # (outputs, inputs) and how often a token meets it
    "q, k, v": (960, 576, 30), "o": (576, 576, 30), "gate, up": (3072, 576, 30),
    "down": (576, 1536, 30), "logits": (49152, 576, 1),
}  # fmt: skip
ROWS = (1, 2, 7, 64)  # compared with the first rows of 512


def _chains(rows: int) -> Callable[..., None]:
    """A function that sums ``x (K, rows)`` by ``w (K, PANEL)`` into ``out``, all addresses."""

    @intrinsic
    def chains(typing, x, w, out, k, stride):
        def code(context, b, signature, args):
            x, w, out = (b.inttoptr(a, ir.FloatType().as_pointer()) for a in args[:3])
            k, stride, at = *args[3:], ir.IntType(64)
            vector, lane = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
            fma = get_or_insert_function(
                b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
            )
            cells = [(r, c) for r in range(rows) for c in range(0, PANEL, LANES)]

            def place(base, row, width, column):
                index = b.add(b.mul(row, width), at(column))
                return b.gep(base, [index])

            def vectors(pointer):
                return b.bitcast(pointer, vector.as_pointer())

            before, loop = b.block, b.append_basic_block()
            b.branch(loop)
            b.position_at_end(loop)
            i, sums = b.phi(at), {cell: b.phi(vector) for cell in cells}
            row = [b.load(vectors(place(w, i, at(PANEL), c)), align=4)
                   for c in range(0, PANEL, LANES)]  # fmt: skip
            new = {}
            for r in range(rows):
                one = b.insert_element(
                    ir.Constant(vector, ir.Undefined), b.load(place(x, i, at(rows), r)), lane(0)
                )
                one = b.shuffle_vector(one, one, ir.Constant(ir.VectorType(lane, LANES), None))
                for c in range(0, PANEL, LANES):
                    new[r, c] = b.call(fma, [one, row[c // LANES], sums[r, c]])
            following = b.add(i, at(1))
            after = b.append_basic_block()
            b.cbranch(b.icmp_signed("<", following, k), loop, after)
            for phi, start, value in [(i, at(0), following)] + [
                (sums[cell], ir.Constant(vector, None), new[cell]) for cell in cells
            ]:
                phi.add_incoming(start, before)
                phi.add_incoming(value, loop)
            b.position_at_end(after)
            for r, c in cells:
                cell = vectors(place(out, at(r), stride, c))
                b.store(b.fadd(b.load(cell, align=4), new[r, c]), cell, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), code

    return chains


_tile, _row = _chains(TILE), _chains(1)


@njit(parallel=True)
def _product(x, packed, out):
    rows, k = x.shape
    whole, stride = rows // TILE, out.shape[1]
    tiles = np.empty((whole, k, TILE), np.float32)
    for i in prange(whole):
        tiles[i] = x[i * TILE : (i + 1) * TILE].T
    for p in prange(len(packed)):
        for s in range(0, k, BLOCK):
            w, width = packed[p, s].ctypes.data, min(BLOCK, k - s)
            for i in range(whole):
                place = out[i * TILE :, p * PANEL :].ctypes.data
                _tile(tiles[i, s].ctypes.data, w, place, width, stride)
            for t in range(whole * TILE, rows):
                _row(x[t, s:].ctypes.data, w, out[t:, p * PANEL :].ctypes.data, width, stride)


def pack(weight: np.ndarray) -> np.ndarray:
    """``(N, K) -> (panels, K, PANEL)``, with zeros after the last output."""
    n, k = weight.shape
    padded = np.zeros((-(-n // PANEL) * PANEL, k), np.float32)
    padded[:n] = weight
    return np.ascontiguousarray(padded.reshape(-1, PANEL, k).swapaxes(1, 2))


def product(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """``(T, K), packed (N, K) -> (T, N)``, N rounded up to a whole panel."""
    out = np.zeros((len(x), len(packed) * PANEL), np.float32)
    _product(x, packed, out)
    return out


def blas(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x @ weight.T


def changing(f: Callable[..., np.ndarray], x: np.ndarray, weight: np.ndarray) -> list[int]:
    """Numbers of rows whose bits are not those of the same rows among all of x, on one thread."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    whole = f(x, weight).view(np.uint32)
    numba.set_num_threads(threads)
    return [t for t in ROWS if not np.array_equal(f(x[:t], weight).view(np.uint32), whole[:t])]


def turns(pairs: dict[str, list], x: dict[int, np.ndarray], rounds: int, clock, rest: float):
    """Seconds of each kind of matrix, per round: ``{name: [(ours, BLAS), ...]}``."""
    took: dict[str, list[tuple[float, ...]]] = {name: [] for name in pairs}
    for turn in range(rounds + 1):
        for name, matrices in pairs.items():
            seconds = [0.0, 0.0]
            for which in (0, 1) if turn % 2 else (1, 0):
                time.sleep(rest)  # BLAS's threads spin for a while after a call
                start = clock()
                for pair in matrices:
                    (product, blas)[which](x[pair[1].shape[1]], pair[which])
                seconds[which] = clock() - start
            if turn:
                took[name].append(tuple(seconds))
    return {**took, "all": list(map(tuple, np.sum(list(took.values()), axis=0)))}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--blocks", type=int, default=30)
    args = parser.parse_args(argv)
    rng, pairs = np.random.default_rng(0), {}
    for name, (n, k, times) in SHAPES.items():
        drawn = [rng.standard_normal((n, k), dtype=np.float32)
                 for _ in range(min(times, args.blocks))]  # fmt: skip
        pairs[name] = [(pack(w), w) for w in drawn]
    x = {k: rng.standard_normal((512, k), dtype=np.float32) for k in (576, 1536)}
    print(f"{machine()}, Numba {numba.__version__}\n")
    print("| matrix | rows that change, ours | BLAS | error, ours | BLAS |\n" + "|---" * 5 + "|")
    failed, digest = False, hashlib.sha256()
    for name, matrices in pairs.items():
        packed, w = matrices[0]
        rows = x[w.shape[1]]
        ours, theirs = changing(product, rows, packed), changing(blas, rows, w)
        true = rows[:64].astype(np.float64) @ w.T.astype(np.float64)
        off = [np.sqrt(np.mean((f(rows[:64], m)[:, : len(w)] - true) ** 2))
               for f, m in ((product, packed), (blas, w))]  # fmt: skip
        print(f"| {name} | {ours or 'none'} | {theirs or 'none'} | {off[0]:.1e} | {off[1]:.1e} |")
        failed |= bool(ours)
        digest.update(product(rows, packed))
    print(f"\nSHA-256 of our products: {digest.hexdigest()[:16]}")
    print("\n| threads | rows | matrix | ours, ms | BLAS, ms | ours / BLAS (quartiles) "
          "| fastest, ms |")  # fmt: skip
    print("|---" * 7 + "|")
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with threadpool_limits(threads, "blas"):
            for count in (1, 512):
                kinds = {k: v for k, v in pairs.items() if count == 1 or k != "logits"}
                few = {k: rows[:count] for k, rows in x.items()}
                took = turns(kinds, few, args.rounds, clock, 0.0 if threads == 1 else 0.1)
                for name, found in took.items():
                    ours, theirs = np.median(found, axis=0) * 1e3
                    best = " / ".join(f"{s * 1e3:.1f}" for s in np.min(found, axis=0))
                    low, mid, high = statistics.quantiles((a / b for a, b in found), n=4)
                    print(f"| {threads} | {count} | {name} | {ours:.1f} | {theirs:.1f} | {mid:.2f} "
                          f"({low:.2f} to {high:.2f}) | {best} |", flush=True)  # fmt: skip
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

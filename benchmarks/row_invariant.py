"""A float32 product whose rows do not depend on how many there are, beside NumPy's BLAS.

    python -m benchmarks.row_invariant    # needs  pip install "minikv[numba]" threadpoolctl

The product is that of `minikv.backends.numba_float32`, which says how it is taken: ``float32`` on
Numba.

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
from threadpoolctl import threadpool_limits

from minikv.backends.numba_float32 import pack, product
from minikv.experiments import machine

SHAPES = {  # (outputs, inputs) and how often a token meets it
    "q, k, v": (960, 576, 30),
    "o": (576, 576, 30),
    "gate, up": (3072, 576, 30),
    "down": (576, 1536, 30),
    "logits": (49152, 576, 1),
}
ROWS = (1, 2, 7, 64)  # compared with the first rows of 512


def invariant(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    """``(T, K), packed (N, K) -> (T, N)``, N rounded up to a whole panel."""
    return product(x[None], packed)[0]


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
                    (invariant, blas)[which](x[pair[1].shape[1]], pair[which])
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
        drawn = [
            rng.standard_normal((n, k), dtype=np.float32) for _ in range(min(times, args.blocks))
        ]
        pairs[name] = [(pack(w[None]), w) for w in drawn]
    x = {k: rng.standard_normal((512, k), dtype=np.float32) for k in (576, 1536)}
    print(f"{machine()}, Numba {numba.__version__}\n")
    print("| matrix | rows that change, ours | BLAS | error, ours | BLAS |\n" + "|---" * 5 + "|")
    failed, digest = False, hashlib.sha256()
    for name, matrices in pairs.items():
        packed, w = matrices[0]
        rows = x[w.shape[1]]
        ours, theirs = changing(invariant, rows, packed), changing(blas, rows, w)
        true = rows[:64].astype(np.float64) @ w.T.astype(np.float64)
        off = [
            np.sqrt(np.mean((f(rows[:64], m)[:, : len(w)] - true) ** 2))
            for f, m in ((invariant, packed), (blas, w))
        ]
        print(f"| {name} | {ours or 'none'} | {theirs or 'none'} | {off[0]:.1e} | {off[1]:.1e} |")
        failed |= bool(ours)
        digest.update(invariant(rows, packed))
    print(f"\nSHA-256 of our products: {digest.hexdigest()[:16]}")
    print(
        "\n| threads | rows | matrix | ours, ms | BLAS, ms | ours / BLAS (quartiles) "
        "| fastest, ms |"
    )
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
                    print(
                        f"| {threads} | {count} | {name} | {ours:.1f} | {theirs:.1f} | {mid:.2f} "
                        f"({low:.2f} to {high:.2f}) | {best} |",
                        flush=True,
                    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

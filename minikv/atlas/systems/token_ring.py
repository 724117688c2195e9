"""TokenRing: keys split over devices in a ring, which pass queries and unfinished outputs on.

Wang et al. 2024, arXiv 2412.20501. *Rule.* Each device holds the keys and values of some tokens. An
output and the logarithm of its denominator are passed on and merged with those of the next device.

*Departures.* Devices are threads, or parts of one array; the merge is in float64, of the largest
score and the denominator, where the code has their logarithm and a sigmoid of differences.

*Its authors claim* speed, and full attention's result. *Here:* the merge is a commutative monoid in
the reals, and in floats each tree of merges rounds in its own way. A protocol of maxima and of sums
on a common grid (`minikv.parallel.context`) has the bits of one pass, in any order and tree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arithmetic import NumpyExact, Sight
from ...parallel import Comm, run_threads
from ...parallel.context import over_context
from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same
from ..merging import any_tree, finish, merge, part
from ..quantising import softmax

KEYS = 40
RANKS = 3
ROUNDING = 1e-12  # KEYS terms, each rounded a few times in float64


def case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A query of two heads that share keys, and settled keys and values; float32."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(1, 2, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, KEYS, 1, 8)).astype(np.float32)
    arithmetic = NumpyExact(KEYS)
    return q, arithmetic.settle(k), arithmetic.settle(v)


def on_ranks(seed: int, order: int) -> np.ndarray:
    """Attention with the keys dealt to ranks, which reduce in random orders; ``(1, 2, 8)``."""
    q, k, v = case(seed)

    def work(comm: Comm) -> np.ndarray:
        own = np.arange(comm.rank, KEYS, comm.size)
        split = over_context(NumpyExact(KEYS), comm)
        return split.attention(q, k[own], v[own], Sight(np.array([KEYS]), own), 8**-0.5)

    return run_threads(RANKS, work, order)[0]


def ring(seed: int, order: int) -> np.ndarray:
    """Attention by merging parts in a random tree, ``(1, 2, 8)`` float32."""
    q, k, v = case(seed)
    rng = np.random.default_rng(order)
    places = np.array_split(rng.permutation(KEYS), RANKS)
    heads = []
    for asked in q[0].astype(np.float64):
        scores = k[:, 0].astype(np.float64) @ asked * 8**-0.5
        parts = [part(scores[place], v[place, 0].astype(np.float64)) for place in places]
        parts.append(part(scores[:0], v[:0, 0]))
        heads.append(finish(any_tree(parts, rng)))
    return np.stack(heads)[None].astype(np.float32)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    q, k, v = case(0)
    whole = NumpyExact(KEYS).attention(q, k, v, Sight(np.array([KEYS]), np.arange(KEYS)), 8**-0.5)
    scores = k[:, 0].astype(np.float64) @ q[0, 0].astype(np.float64) * 8**-0.5
    values = v[:, 0].astype(np.float64)
    left = merge(part(scores[:9], values[:9]), part(scores[9:], values[9:]))
    right = merge(part(scores[9:], values[9:]), part(scores[:9], values[:9]))
    moved = float(np.abs(finish(left) - softmax(scores) @ values).max())
    swapped = float(np.abs(finish(left) - finish(right)).max())
    rings = np.stack([ring(seed, order) for seed in range(8) for order in range(2)])
    passes = np.stack(
        [
            NumpyExact(KEYS).attention(
                *case(seed), Sight(np.array([KEYS]), np.arange(KEYS)), 8**-0.5
            )
            for seed in range(8)
            for _ in range(2)
        ]
    )
    return [
        same("the protocol over three ranks = one pass", on_ranks(0, 1), whole),
        same("in another order", on_ranks(0, 2), whole),
        at_most("the merge in float64, from softmax", moved, ROUNDING),
        at_most("swapped", swapped, ROUNDING),
        other("the merge, narrowed to float32, beside the exact pass", rings, passes),
    ]


ENTRY = Entry(
    name="token_ring",
    title="TokenRing",
    arxiv="2412.20501",
    kind=Kind.SPLITTING,
    state="the full cache, wherever its rows lie",
    verdict=Exactness.EXACT,
    reason="Merging is a commutative monoid in the reals. In bits, a protocol of maxima and exact "
    "sums has those of one pass; merges that scale anew have not.",
    read="abstract, and the authors' code: its merge",
    theorems=("A1", "T7", "T12"),
    demonstrate=demonstrate,
)

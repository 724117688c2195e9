"""Chelsea: keys that are alike are merged, each cluster to one centroid.

arXiv 2506.11418, now called CentroidKV. *Rule.* Keys are cut into chunks of neighbours; within a
chunk, every second one is matched to the most similar of the others, and the closest pairs become
one row, their mean.

*Departures.* One round, and the closest half of the matches, within the rows of one head; the paper
goes on round after round while it decodes. `weighted` adds the logarithm of a row's count to its
score; whether the paper weighs a centroid so, its abstract does not say.

*Its authors claim* up to 80 % less memory at comparable accuracy. *Here:* equal rows are merged
without loss where the score of the one that is left gets the logarithm of their count; without it
the row is too light by that factor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, true
from ..quantising import softmax

ROUNDING = 1e-12  # two sums of 40 quotients in float64: 40 * 2**-53 * 100


def merged(
    keys: np.ndarray, values: np.ndarray, counts: np.ndarray, chunk: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, values and counts after one round of matching; ``(S, d)``, ``(S, d)``, ``(S,)``."""
    gone: set[int] = set()
    keys = keys.copy()
    values = values.copy()
    counts = counts.copy()
    for start in range(0, len(keys), chunk):
        rows = np.arange(start, min(start + chunk, len(keys)))
        givers = rows[1::2]
        takers = rows[0::2]
        if not len(givers):
            continue
        distance = np.linalg.norm(keys[givers][:, None] - keys[takers][None], axis=-1)
        nearest = distance.argmin(axis=1)
        closest = np.argsort(distance.min(axis=1), kind="stable")[: max(1, len(givers) // 2)]
        for index in closest.tolist():
            giver = int(givers[index])
            taker = int(takers[nearest[index]])
            both = counts[giver] + counts[taker]
            for table in (keys, values):
                mean = table[taker] * counts[taker] + table[giver] * counts[giver]
                table[taker] = mean / both
            counts[taker] = both
            gone.add(giver)
    left = [row for row in range(len(keys)) if row not in gone]
    return keys[left], values[left], counts[left]


def attended(
    q: np.ndarray, keys: np.ndarray, values: np.ndarray, counts: np.ndarray, weighted: bool
) -> np.ndarray:
    """Attention of a query, in which a row counts for as many as were merged, or for one."""
    scores = keys @ q
    if weighted:
        scores = scores + np.log(counts)
    return softmax(scores) @ values


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    rng = np.random.default_rng(0)
    q = rng.normal(size=6)
    keys, values = rng.normal(size=(2, 12, 6))
    ones = np.ones(12)
    twins = np.repeat(keys[:6], 2, axis=0)  # each key twice, side by side
    twin_values = np.repeat(values[:6], 2, axis=0)
    whole = attended(q, twins, twin_values, ones, weighted=False)
    k, v, counts = merged(twins, twin_values, ones)
    weighted = np.abs(attended(q, k, v, counts, weighted=True) - whole).max()
    light = np.abs(attended(q, k, v, counts, weighted=False) - whole).max()
    exact = attended(q, keys, values, ones, weighted=False)
    k, v, counts = merged(keys, values, ones)
    others = np.abs(attended(q, k, v, counts, weighted=True) - exact).max()
    return [
        at_most("equal rows merged, scores with log of the count: moved", weighted, ROUNDING),
        above("the same without the logarithm", light, 0.01),
        above("rows that differ, with the logarithm", others, 0.01),
        true("counts add up to the keys", counts.sum() == 12, f"{counts.astype(int).tolist()}"),
    ]


ENTRY = Entry(
    name="chelsea",
    title="Chelsea",
    arxiv="2506.11418",
    kind=Kind.MERGING,
    state="the centroids, and how many rows each stands for",
    verdict=Exactness.LOSSY,
    reason="Equal rows merge without loss where the score gets the logarithm of their count, and "
    "with loss without it.",
    cure="add log m to the score of m equal rows",
    read="abstract; neither its code nor the text of its method was found",
    theorems=("A1",),
    demonstrate=demonstrate,
)

"""LongHeads: each head reads the chunks that suit it, and all heads together the whole text.

Lu et al. 2024, arXiv 2402.10685. *Rule.* The text is cut into chunks. Each head scores each chunk
by the product of its query and the chunk's representative key, and reads the first chunk, the
newest one, and the best of the others, so many that no head reads more than the model was trained
on.

*Departures.* The representative is the mean key, where the code lets the chunk attend to itself,
takes the mean of that, and weighs the keys by it; query heads that share keys choose together;
positions stay those of the text, where the code counts them anew over what is read.

*Its authors claim* texts far beyond the trained length without training. *Here:* all chunks read is
the full cache; heads choose for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import decoded, full_logits, new_full
from ..reading import Reading, by_group, highest
from .zoomr import summaries

CHUNK = 2


class OwnChunks(Reading):
    """Each K/V head reads `chunks` chunks of its own choice, first and newest among them."""

    def __init__(self, inner: Cache, chunks: int) -> None:
        super().__init__(inner)
        self.chunks = chunks

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        scores = by_group(q, summaries(keys, CHUNK))  # (chunks, G)
        scores[0] = np.inf
        scores[-1] = np.inf
        best = highest(scores, self.chunks)
        chunk = np.arange(len(keys)) // CHUNK
        rest = chunk >= len(scores)
        read = best[np.minimum(chunk, len(scores) - 1)]
        return read | rest[:, None]


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    memory = OwnChunks(new_full(), 3)
    logits = decoded(memory)
    reads = memory.reads[1]
    differ = bool((reads[:, 0] != reads[:, 1]).any())
    return [
        same("all chunks = the full cache", decoded(OwnChunks(new_full(), 99)), full_logits()),
        true("the first chunk is always read", bool(reads[:CHUNK].all()), f"{reads[:CHUNK].sum()}"),
        true("heads choose others", differ, f"{reads.sum(axis=0).tolist()} rows"),
        other("three chunks, beside the full cache", logits, full_logits()),
    ]


ENTRY = Entry(
    name="long_heads",
    title="LongHeads",
    arxiv="2402.10685",
    kind=Kind.SELECTING,
    state="the full cache",
    verdict=Exactness.LOSSY,
    reason="All chunks read: the full cache, within the context. Given queries, keys and values, "
    "heads choose for themselves.",
    read="abstract, and the authors' code: its attention",
    theorems=("T9",),
    demonstrate=demonstrate,
)

"""ZoomR: summaries are a coarse index, and a query zooms into the thoughts that matter.

Yang et al. 2026, arXiv 2604.10898. *Rule.* Each chunk of text has a summary, whose keys are scored
first; all heads together choose the best chunks, whose tokens are then read.

*Departures.* A chunk is `CHUNK` tokens, and its summary the mean of its keys, where the paper's
model is tuned to write summaries. So this is an index of two levels, of the kind that LouisKV and
IceCache have too. By others' notes the summaries are read beside the chosen chunks, and so is a
window of the newest tokens; here only the rows of the chunk that is not whole yet are.

*Its authors claim* four times less memory at competitive accuracy. *Here:* zooming into all chunks
is the full cache, and whatever is read is a part of what full attention reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries, to_numpy
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import decoded, full_logits, new_full
from ..reading import Reading, by_group

CHUNK = 3


def summaries(keys: Keys, size: int) -> np.ndarray:
    """The mean key of each whole chunk, ``(chunks, G, d)``."""
    rows = to_numpy(keys, dtype=np.float64)
    whole = len(rows) // size * size
    return rows[:whole].reshape(-1, size, *rows.shape[1:]).mean(axis=1)


class TwoLevels(Reading):
    """Read the `zoom` chunks whose summaries score best, and what is in no whole chunk yet."""

    def __init__(self, inner: Cache, zoom: int) -> None:
        super().__init__(inner)
        self.zoom = zoom

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        scores = by_group(q, summaries(keys, CHUNK)).max(axis=1)  # of all heads together
        best = np.argsort(-scores, kind="stable")[: self.zoom]
        chunk = np.arange(len(keys)) // CHUNK
        read = np.isin(chunk, best) | (chunk >= len(scores))
        return np.repeat(read[:, None], keys.shape[1], axis=1)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    zoomed = TwoLevels(new_full(), 2)
    logits = decoded(zoomed)
    counts = [int(read.sum(axis=0).max()) for read in zoomed.reads.values()]
    return [
        same("all chunks = the full cache", decoded(TwoLevels(new_full(), 99)), full_logits()),
        true("two chunks, the rest and itself", max(counts) <= 3 * CHUNK, f"{counts}"),
        other("two chunks, beside the full cache", logits, full_logits()),
    ]


ENTRY = Entry(
    name="zoomr",
    title="ZoomR",
    arxiv="2604.10898",
    kind=Kind.SELECTING,
    state="the full cache; the index is a function of it",
    verdict=Exactness.LOSSY,
    reason="All chunks read: the full cache. The summaries are means, not written by a model.",
    read="abstract, and others' notes of the paper",
    theorems=("T9",),
    demonstrate=demonstrate,
)

"""LycheeDecode: a few heads find the tokens that matter, and the many read those.

Lin et al. 2026, arXiv 2602.04541. *Rule.* Heads are parted in retrieval heads, which read
everything and find `keep` tokens, and sparse heads, which read what the head of the same number
read in the layer below.

*Departures.* Which heads are which is given, where the paper learns it with a relaxed distribution:
K/V head 0 of layer 0 retrieves for all, and every other head is sparse, in its own layer too.

*Its authors claim* the full cache's quality at 2.7 times the speed. *Here:* with as many tokens as
there are it is the full cache; a sparse head reads a subset that a retrieval head found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, decoded, full_logits, new_full
from ..reading import Reading, by_group, highest


class HybridHeads(Reading):
    """Head 0 of layer 0 retrieves `keep` tokens for all others."""

    def __init__(self, inner: Cache, keep: int) -> None:
        super().__init__(inner)
        self.keep = keep
        self.found = np.zeros(0, dtype=bool)

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        read = np.zeros(keys.shape[:2], dtype=bool)
        if layer.index == 0:
            self.found = highest(by_group(q, keys)[:, :1], self.keep)[:, 0]
        read[:] = self.found[:, None]
        if layer.index == 0:
            read[:, 0] = True
        return read


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    memory = HybridHeads(new_full(), 4)
    logits = decoded(memory)
    found = set(np.flatnonzero(memory.found).tolist()) | {TOKENS - 1}
    sparse = [set(np.flatnonzero(memory.reads[1][:, head]).tolist()) for head in range(2)]
    return [
        same(
            "all tokens found = the full cache", decoded(HybridHeads(new_full(), 99)), full_logits()
        ),
        true("sparse heads read what was found", sparse == [found, found], f"{sorted(found)}"),
        true("the retrieval head reads everything", bool(memory.reads[0][:, 0].all()), f"{TOKENS}"),
        other("four tokens, beside the full cache", logits, full_logits()),
    ]


ENTRY = Entry(
    name="lychee_decode",
    title="LycheeDecode",
    arxiv="2602.04541",
    kind=Kind.SELECTING,
    state="the full cache",
    verdict=Exactness.LOSSY,
    reason="All tokens found: the full cache. Which heads retrieve is given, not learnt.",
    read="abstract, and others' notes of the paper",
    theorems=("T9",),
    demonstrate=demonstrate,
)

"""IceCache: tokens that mean alike lie on one page, and few pages are fetched.

Mao et al. 2026, arXiv 2604.10539. *Rule.* Keys are clustered; a page of memory holds tokens of one
cluster, and a table says where each token lies. A query fetches the pages that suit it best.

*Departures.* Clusters are runs of `PAGE` tokens in the order of one coordinate of the key, made
anew at each token, where the paper keeps a tree that is updated; no memory is far away. In the
authors' code the first and newest pages are always read, and some layers may use the clusters of
another; their tree itself, which is code of its own, was not read.

*Its authors claim* 99 % of the accuracy with 256 tokens. *Here:* the table is a bijection, so that
gathering all pages gives back the rows in their order, bit for bit, whatever the clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries, to_numpy
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import decoded, full_logits, kv, new_full, small_model, text
from ..reading import Reading, by_group, highest

PAGE = 3


def page_table(keys: np.ndarray) -> np.ndarray:
    """Where each token of a head lies, ``(S,)``: a permutation, by the first coordinate."""
    order = np.argsort(keys[:, 0], kind="stable")
    table = np.empty(len(keys), dtype=int)
    table[order] = np.arange(len(keys))
    return table


class Paged(Reading):
    """Each head reads the `pages` pages whose mean keys score best."""

    def __init__(self, inner: Cache, pages: int) -> None:
        super().__init__(inner)
        self.pages = pages

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        rows = to_numpy(keys, dtype=np.float64)
        pages = np.stack([page_table(rows[:, g]) for g in range(rows.shape[1])], axis=1) // PAGE
        count = int(pages.max()) + 1
        means = np.stack(
            [
                [rows[pages[:, g] == page, g].mean(axis=0) for g in range(rows.shape[1])]
                for page in range(count)
            ]
        )
        best = highest(by_group(q, means), self.pages)  # (pages, G)
        return np.take_along_axis(best, pages, axis=0)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    keys = kv(small_model(), text())[0][0][:, 0]
    table = page_table(keys)
    memory = np.empty_like(keys)
    memory[table] = keys
    logits = decoded(Paged(new_full(), 2))
    return [
        true(
            "the table is a bijection", sorted(table) == list(range(len(keys))), f"{table.tolist()}"
        ),
        same("gathered from pages = in their order", memory[table], keys),
        other("as they lie on the pages", memory, keys),
        same("all pages = the full cache", decoded(Paged(new_full(), 99)), full_logits()),
        other("two pages, beside the full cache", logits, full_logits()),
    ]


ENTRY = Entry(
    name="ice_cache",
    title="IceCache",
    arxiv="2604.10539",
    kind=Kind.SELECTING,
    state="the full cache, in another order",
    verdict=Exactness.LOSSY,
    reason="A page table is a bijection: all pages are the full cache, bit for bit. Few pages "
    "lose what the others hold.",
    read="abstract, and the authors' code: its pages",
    theorems=("T7", "T9"),
    demonstrate=demonstrate,
)

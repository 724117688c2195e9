"""KVShare: many users' caches in one tree of prefixes, and similar ones mended where they are off.

arXiv 2503.16525. *Rule.* A request takes the cache of its longest known prefix. Where a similar
text is known, its rows are taken too, and those of high deviation are made again in two stages.

*Departures.* The tree holds rows token by token and shares them between texts (who writes makes
rows of their own); deviation is measured against the exact cache, where the paper estimates it; no
scheduler. The paper's second stage is in decoding, where by others' notes each step makes a few
rows again; here all is done before the first token.

*Its authors claim* first tokens nine times as fast at the same accuracy. *Here:* a hit of an exact
prefix has the bits, and so has making all rows again; between, it has not, whatever is chosen,
while a row that changes is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, kv, small_model, text
from ..reuse import KV, mended, stacked

Row = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]
"""Keys and values of one token, layer by layer, ``(G, d)`` each."""


@dataclass
class PrefixTree:
    """Rows of many texts, each prefix once."""

    children: dict[int, PrefixTree] = field(default_factory=dict)
    row: Row | None = None

    def insert(self, ids: Sequence[int], cache: KV) -> int:
        """Add a text's rows; returns how many are new to the tree."""
        new = 0
        node = self
        for place, token in enumerate(ids):
            if token not in node.children:
                keys, values = (tuple(rows[place].copy() for rows in part) for part in cache)
                node.children[token] = PrefixTree(row=(keys, values))
                new += 1
            node = node.children[token]
        return new

    def longest(self, ids: Sequence[int]) -> list[Row]:
        """The rows of the longest known prefix."""
        found: list[Row] = []
        node = self
        for token in ids:
            if token not in node.children:
                break
            node = node.children[token]
            assert node.row is not None
            found.append(node.row)
        return found


def gathered(rows: Sequence[Row], length: int) -> KV:
    """A cache of these rows and room for more, up to `length` tokens."""
    layers = range(len(rows[0][0]))
    parts = []
    for part in range(2):
        known = [np.stack([row[part][layer] for row in rows]) for layer in layers]
        room = [np.zeros((length - len(rows), *x.shape[1:]), x.dtype) for x in known]
        parts.append([np.concatenate(pair) for pair in zip(known, room, strict=True)])
    return parts[0], parts[1]


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    one = text()
    two = (*one[:6], *text(1)[6:])
    tree = PrefixTree()
    first = tree.insert(one, kv(model, one))
    second = tree.insert(two, kv(model, two))
    asked = (*one[:9], *text(2)[9:])
    exact = kv(model, asked)
    rows = tree.longest(asked)
    suffix = np.tile(np.arange(TOKENS) >= len(rows), (2, 1))
    hit, _ = mended(model, gathered(rows, TOKENS), asked, suffix)
    similar = kv(model, (*text(3)[:2], *asked[2:]))
    off = np.abs(stacked(similar) - stacked(exact)).max(axis=(0, 1, 3, 4))
    chosen = np.argsort(-off, kind="stable")[: TOKENS // 2]
    half = np.tile(np.isin(np.arange(TOKENS), chosen), (2, 1))
    mixed, _ = mended(model, similar, asked, half)
    everything, _ = mended(model, similar, asked, np.ones((2, TOKENS), dtype=bool))
    return [
        true(
            "a prefix is stored once", (first, second) == (TOKENS, TOKENS - 6), f"{first}, {second}"
        ),
        true("the longest prefix is found", len(rows) == 9, f"{len(rows)}"),
        same("a prefix hit, the rest made = the exact cache", stacked(hit), stacked(exact)),
        same("all rows made again", stacked(everything), stacked(exact)),
        other("the half that deviates most", stacked(mixed), stacked(exact)),
    ]


ENTRY = Entry(
    name="kv_share",
    title="KVShare",
    arxiv="2503.16525",
    kind=Kind.REUSING,
    state="the tree, and which rows were made for this text",
    verdict=Exactness.LOSSY,
    reason="An exact prefix and recomputing all rows have the bits; a part of the rows that "
    "change has not.",
    cure="compute every row from the first change on",
    read="abstract, and others' notes of the paper",
    theorems=("A4", "T8", "T10"),
    demonstrate=demonstrate,
)

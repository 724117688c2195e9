"""LouisKV: what to read is looked up where the meaning turns, and kept until the next turn.

arXiv 2510.11292. *Rule.* While queries stay alike, the set of tokens that are read stays; where a
query turns away from the last one, the set is chosen anew. Prompt and answer are managed apart, in
clusters of some 16 keys and in spans between turns; first and newest tokens are always read.

*Departures.* The turn is a cosine below `turn` between the mean query of a layer and that of the
last turn; tokens are chosen one by one, not in clusters, prompt and answer alike, by the largest
score of a group of heads, where the paper takes the mean of their weights.

*Its authors claim* up to 4.7 times the speed at nearly the same accuracy. *Here:* all tokens read
is the full cache, and between two turns the set is the same, with the new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries, to_numpy
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, decoded, full_logits, new_full
from ..reading import Reading, by_group, highest


class Turning(Reading):
    """Choose `keep` tokens anew where a query's cosine with the last chooser is below `turn`."""

    def __init__(self, inner: Cache, keep: int, turn: float) -> None:
        super().__init__(inner)
        self.keep = keep
        self.turn = turn
        self.last: dict[int, np.ndarray] = {}
        self.sets: dict[int, np.ndarray] = {}
        self.turns = 0
        self.constant = True

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        mean = to_numpy(q, dtype=np.float64).mean(axis=(0, 1))
        before = self.last.get(layer.index)
        if before is None or cosine(mean, before) < self.turn:
            self.last[layer.index] = mean
            self.sets[layer.index] = highest(by_group(q, keys), self.keep)
            self.turns += 1
        kept = self.sets[layer.index]
        new = np.ones((len(keys) - len(kept), keys.shape[1]), dtype=bool)
        self.constant &= bool((kept.sum(axis=0) == min(self.keep, len(kept))).all())
        return np.concatenate([kept, new])


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    """Of two rows."""
    return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    never = Turning(new_full(), 4, -2.0)
    always = Turning(new_full(), 4, 2.0)
    everything = decoded(Turning(new_full(), TOKENS, 0.5))
    logits = decoded(never)
    often = decoded(always)
    return [
        same("all tokens read = the full cache", everything, full_logits()),
        true("without a turn the set stays", never.constant and never.turns == 2, f"{never.turns}"),
        true("with a turn at each token it is chosen anew", always.turns == 8, f"{always.turns}"),
        other("once and at each token", logits, often),
        other("four tokens, beside the full cache", logits, full_logits()),
    ]


ENTRY = Entry(
    name="louis_kv",
    title="LouisKV",
    arxiv="2510.11292",
    kind=Kind.SELECTING,
    state="the full cache, and the set that was chosen last with the query that chose it",
    verdict=Exactness.LOSSY,
    reason="All tokens read: the full cache. Else the sets are a state of their own: what is read "
    "depends on where the last turn was.",
    read="abstract, and others' notes of the paper",
    theorems=("T9",),
    demonstrate=demonstrate,
)

"""LazyEviction: tokens come back to mind at intervals; drop those whose longest interval is over.

Zhang et al. 2025, arXiv 2506.15969. *Rule.* Of each key, note when it last got a weight of `alpha`
or more, and the longest time between two such moments. Eviction lags: rows gather until the budget
is full, and then those go whose time since the last moment is longest, counted in their own longest
intervals. The newest `window` rows always stay.

*Departures.* The budget here is the peak; after an eviction ``budget - window`` rows are left,
where the paper lets `budget` be left and the window come on top. The score is the quotient alone,
without the paper's sigmoid and its second term. Moments are counted in tokens. Weights are
averaged over the heads that share keys.

*Its authors claim* half of the cache or less at the same accuracy in long reasoning; they do not
claim that no bit changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import Pattern, Positions, to_numpy
from ...caches import Evicting, Rows
from ...layers import Layer
from ..budgets import keep_best
from ..entry import Comparison, Entry, Exactness, Kind, true
from ..ground import evicting_comparisons, small_model, watched


@dataclass(eq=False, repr=False)
class LazyEviction(Evicting):
    """Evict seldom, and by how long a key has not been attended to; arXiv 2506.15969."""

    policy = "lazy_eviction"
    watches = True
    per_head = True
    numbers = Evicting.numbers | {"last": np.float64, "interval": np.float64}

    window: int = 2
    alpha: float = 0.05

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "window": 1, "alpha": 0.2}]

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        rows = self.rows[layer.index]
        weights = to_numpy(pattern, dtype=np.float64)
        groups = layer.config.num_key_value_heads
        keys = weights.shape[-1]
        by_query = weights.reshape(groups, -1, len(positions), keys).mean(axis=1)  # (G, T, S)
        last = rows.numbers["last"][:keys]
        longest = rows.numbers["interval"][:keys]
        born = rows.positions[:keys].astype(np.float64)
        for number, now in enumerate(positions.tolist()):
            again = self.alpha <= by_query[:, number].T
            since = now - np.maximum(last, born)
            longest[:] = np.where(again, np.maximum(longest, since), longest)
            last[:] = np.where(again, now, last)

    def priority(self, rows: Rows) -> np.ndarray:
        now = rows.positions.max()
        since = now - np.maximum(rows.numbers["last"], rows.positions)
        newest = np.arange(len(rows))[:, None] >= len(rows) - self.window
        return np.where(newest, np.inf, -since / (1.0 + rows.numbers["interval"]))

    def evict(self, layer: Layer) -> None:
        rows = self.rows[layer.index]
        if len(rows) > self.budget:
            keep_best(rows, self._checked_priority(rows), max(1, self.budget - self.window))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    held = watched(LazyEviction(small_model().weights, budget=8, window=4)).held
    peak = true("the peak is the budget, reached between evictions", held == 8, f"{held} of 8")
    return [*evicting_comparisons(LazyEviction), peak]


ENTRY = Entry(
    name="lazy_eviction",
    title="LazyEviction",
    arxiv="2506.15969",
    kind=Kind.EVICTING,
    state="the rows kept, with the last moment and the longest interval of each",
    verdict=Exactness.LOSSY,
    reason="With room for all tokens it is the full cache; below, one output moves by T9 at most.",
    read="abstract, and others' notes of the paper",
    theorems=("T9",),
    policy=LazyEviction,
    demonstrate=demonstrate,
)

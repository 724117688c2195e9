"""CAKE: layers get slices of one budget, by how their attention is spread and how it shifts.

Qin et al. 2025, arXiv 2503.12491. *Rule.* A layer's preference is the entropy of the mean weights
of its newest queries (spread over tokens), and the variance of each weight over these queries
(shift over time), each to a power. Budgets are proportional to preferences. As the layers of a call
are done one by one, the budget is dealt anew among those that are done (the cascade). A layer keeps
its newest `window` tokens and those of the highest mean plus `gamma` times variance.

*Departures.* The voters are the newest `window` queries of every call, not of the prompt alone.
Budgets are dealt by Adams's method, which needs no rounding and leaves no layer empty; the code
rounds down and hands out the rest one by one, windows apart. Means and variances are over the heads
that share keys and all tokens; the code adds up the entropy of each query's weights, takes the
variance of each head by itself, leaves the window out, and averages over five neighbours. Its
budgets are those of the prompt: while it decodes, layers keep them, and tokens of the highest mean.

*Its authors claim* the full cache's accuracy with 3.2 % of it. *Here:* the cascade ends where an
allocation at once ends, bit for bit, and budgets add up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import NewKeys, NewValues, Pattern, Positions, Stream, to_numpy
from ...caches import Evicting, Rows
from ...layers import Layer
from ...memory import Attended
from ..budgets import keep_best, shares
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, decoded, full_logits, small_model


@dataclass(eq=False, repr=False)
class Cake(Evicting):
    """Deal one budget to the layers, `budget` tokens to each on average; arXiv 2503.12491."""

    policy = "cake"
    watches = True
    per_head = True
    grows = True  # a layer may keep more than the mean
    numbers = Evicting.numbers | {
        "squares": np.float64,
        "voters": np.float64,
        "preference": np.float64,
    }

    window: int = 3
    gamma: float = 5.0
    cascade: bool = True

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "window": 1, "gamma": 0.0, "cascade": False}]

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        found = super().update(layer, positions, residual, k, v)
        for name in ("scores", "squares", "voters"):
            self.rows[layer.index].numbers[name][:] = 0.0  # every call votes anew
        return found

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        rows = self.rows[layer.index]
        voters = positions >= rows.positions.max() - self.window + 1
        weights = to_numpy(pattern, dtype=np.float64)[:, voters]  # (H, W, S)
        groups = layer.config.num_key_value_heads
        keys = weights.shape[-1]
        by_group = weights.reshape(groups, -1, keys)  # every head of a group votes for itself
        rows.scores[:keys] += by_group.sum(axis=1).T
        rows.numbers["squares"][:keys] += (by_group * by_group).sum(axis=1).T
        rows.numbers["voters"][:] += by_group.shape[1]

    def moments(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of what the voters gave each key, twice ``(S, G)``."""
        mean = rows.scores / rows.numbers["voters"]
        variance = rows.numbers["squares"] / rows.numbers["voters"] - mean * mean
        return mean, np.maximum(variance, 0.0)

    def priority(self, rows: Rows) -> np.ndarray:
        mean, variance = self.moments(rows)
        newest = np.arange(len(rows))[:, None] >= len(rows) - self.window
        return np.where(newest, np.inf, mean + self.gamma * variance)

    def evict(self, layer: Layer) -> None:
        rows = self.rows[layer.index]
        mean, variance = self.moments(rows)
        entropy = -(mean * np.log(np.where(mean > 0, mean, 1.0))).sum()
        rows.numbers["preference"][:] = 1e-9 + entropy * (1e-9 + variance.sum()) ** 0.5
        if self.cascade or layer.index == len(self.rows) - 1:
            self._deal(self.rows[: layer.index + 1])

    def _deal(self, done: list[Rows]) -> None:
        """Deal the whole budget among the layers that are done, and cut them to it."""
        total = self.budget * len(self.rows)
        preferences = [float(rows.numbers["preference"].max()) for rows in done]
        counts = shares(preferences, total, [len(rows) for rows in done])
        for rows, count in zip(done, counts, strict=True):
            keep_best(rows, self._checked_priority(rows), count)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    weights = small_model().weights
    cascading = Cake(weights, 6)
    dealing = Cake(weights, 6, cascade=False)
    cascaded = decoded(cascading)
    dealt = decoded(dealing)
    kept = [rows.positions.T.tolist() for rows in cascading.rows]
    at_once = [rows.positions.T.tolist() for rows in dealing.rows]
    counts = [len(layer[0]) for layer in kept]
    return [
        same(
            "budget for all tokens = the full cache", decoded(Cake(weights, TOKENS)), full_logits()
        ),
        true("budgets add up to the whole", sum(counts) == 6 * len(counts), f"{counts}"),
        true("the cascade keeps what dealing at once keeps", kept == at_once, f"{counts}"),
        same("and so do the logits", cascaded, dealt),
        true("layers differ", len(set(counts)) > 1, f"{counts}", control=True),
        other("a budget of 6, beside the full cache", cascaded, full_logits()),
    ]


ENTRY = Entry(
    name="cake",
    title="CAKE",
    arxiv="2503.12491",
    kind=Kind.EVICTING,
    state="the rows kept, and each layer's preference",
    verdict=Exactness.LOSSY,
    reason="Budgets of layers add up exactly, and dealing them layer by layer ends where dealing "
    "at once does; below the full budget bits are lost.",
    read="abstract, and the authors' code: its scores, budgets and cache",
    theorems=("T9",),
    policy=Cake,
    demonstrate=demonstrate,
)

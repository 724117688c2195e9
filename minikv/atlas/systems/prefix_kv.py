"""PrefixKV: one threshold for all layers, found by halving, says how long each layer's prefix is.

arXiv 2412.03409, of models that see. *Rule.* Sort a layer's tokens by importance; its prefix of
share p is the fewest of them whose importance reaches p of the whole. One p for all layers is found
by halving, such that prefixes add up to the budget.

*Departures.* Importance is the attention that a key got, over all heads and queries of the last
call; p is found anew after each call, where the paper finds it once, on some samples, and keeps it.
The code also keeps four first tokens and the newest, stops halving within five tokens of the budget
and stretches what is missing, and drops one token a step while it decodes, at a fixed distance from
the end; none of that is here. Prefixes grow by steps, so that the sum may jump over the budget: the
tokens that are still missing go to the layers whose next token is the most important. All layers of
a call are cut when the last one is done.

*Its authors claim* better answers than a budget that is equal for all layers. *Here:* the sizes add
up to the budget exactly, and the sum of prefixes never falls as p grows, which is what halving
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...arrays import NewKeys, NewValues, Pattern, Positions, Stream, to_numpy
from ...caches import Evicting, Rows
from ...layers import Layer
from ...memory import Attended
from ..budgets import keep_best
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, decoded, full_logits, small_model


def lengths(importance: Sequence[np.ndarray], share: float) -> list[int]:
    """The fewest tokens of each layer that reach a share of its importance, one at least."""
    found = []
    for layer in importance:
        reached = np.cumsum(np.sort(layer)[::-1]) / layer.sum()
        found.append(1 + int(np.sum(reached[:-1] < share)))
    return found


def allotted(importance: Sequence[np.ndarray], total: int) -> list[int]:
    """Tokens of each layer, `total` together or all that there are.

    Examples
    --------
    >>> allotted([np.array([8.0, 1.0, 1.0]), np.array([3.0, 3.0, 4.0])], 4)
    [1, 3]
    """
    low = 0.0
    high = 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if sum(lengths(importance, middle)) <= total:
            low = middle
        else:
            high = middle
    counts = lengths(importance, low)
    ranked = [np.sort(layer)[::-1] / layer.sum() for layer in importance]
    while sum(counts) < min(total, sum(map(len, importance))):
        waiting = [n for n, layer in enumerate(ranked) if counts[n] < len(layer)]
        best = max(waiting, key=lambda n: (ranked[n][counts[n]], -n))
        counts[best] += 1
    return counts


@dataclass(eq=False, repr=False)
class PrefixKV(Evicting):
    """Cut all layers at one share of their importance; `budget` on average; arXiv 2412.03409."""

    policy = "prefix_kv"
    watches = True
    grows = True  # a layer may keep more than the mean

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        found = super().update(layer, positions, residual, k, v)
        self.rows[layer.index].scores[:] = 0.0
        return found

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        received = to_numpy(pattern, dtype=np.float64).sum(axis=(0, 1))  # (S,)
        self.rows[layer.index].scores[: len(received)] += received[:, None]

    def priority(self, rows: Rows) -> np.ndarray:
        return rows.scores

    def evict(self, layer: Layer) -> None:
        if layer.index < len(self.rows) - 1:
            return
        importance = [rows.scores[:, 0] for rows in self.rows]
        counts = allotted(importance, self.budget * len(self.rows))
        for rows, count in zip(self.rows, counts, strict=True):
            keep_best(rows, self._checked_priority(rows), count)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    weights = small_model().weights
    cache = PrefixKV(weights, 6)
    logits = decoded(cache)
    counts = [len(rows) for rows in cache.rows]
    rng = np.random.default_rng(0)
    importance = [rng.random(20) ** power for power in (1, 4, 9)]
    sums = [sum(lengths(importance, share)) for share in np.linspace(0, 1, 50)]
    dealt = allotted(importance, 17)
    exact = all(sum(allotted(importance, total)) == total for total in range(12, 22))
    alike = allotted([np.ones(5), np.ones(5)], 5)  # sizes jump by two
    halves = lengths(importance, 0.5)
    ranked = [np.cumsum(np.sort(layer)[::-1]) / layer.sum() for layer in importance]
    fewest = all(
        reached[count - 1] >= 0.5 and (count == 1 or reached[count - 2] < 0.5)
        for reached, count in zip(ranked, halves, strict=True)
    )
    return [
        same("budget for all = the full cache", decoded(PrefixKV(weights, TOKENS)), full_logits()),
        true("sizes add up to the budget", sum(counts) == 12, f"{counts}"),
        true("and for three layers, of 12 to 21 tokens", exact, f"{dealt}"),
        true("and where sizes jump over it", sum(alike) == 5, f"{alike}"),
        true("a prefix is the fewest tokens that reach the share", fewest, f"{halves}"),
        true(
            "the sum never falls as the share grows", sums == sorted(sums), f"{sums[0]}, {sums[-1]}"
        ),
        true("layers differ", len(set(dealt)) > 1, f"{dealt}", control=True),
        other("a budget of 6, beside the full cache", logits, full_logits()),
    ]


ENTRY = Entry(
    name="prefix_kv",
    title="PrefixKV",
    arxiv="2412.03409",
    kind=Kind.EVICTING,
    state="the rows kept",
    verdict=Exactness.LOSSY,
    reason="Sizes of layers add up to the budget exactly; below the full one bits are lost.",
    read="abstract, and the authors' code: its search and its cache",
    theorems=("T9",),
    policy=PrefixKV,
    demonstrate=demonstrate,
)

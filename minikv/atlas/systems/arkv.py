"""ARKV: each token stays as it is, is kept in few bits, or goes.

Lei and Ilager 2026, arXiv 2603.08727. *Rule.* Tokens are ranked by the attention that they have
got. A layer's budget goes to the best; the share of these that keeps full precision is the layer's
own, from how its attention is spread; the rest is rounded.

*Departures.* The share is the entropy of the mean weights beside that of equal ones, where the
paper takes variance and kurtosis too; `original` gives it instead. It is taken at each call.
Rounded rows take as many bytes here as others: the numbers are shown, not the memory. A row that
was rounded stays so. In the authors' code the share is a product of roots of entropy, variance and
kurtosis, divided by the largest layer's and taken once, from the prompt; a token's score is its
mean weight in the newest call, smoothed over its neighbours, not the sum of all calls; the newest
window is kept as it is; and a rounded row, which has eight bits, may be kept in full again.

*Its authors claim* 97 % of the accuracy with four times less memory. *Here:* the three states are a
partition of the tokens, all in the first is the full cache, and a rounded number is off by half a
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import Pattern, Positions, to_numpy
from ...caches import Evicting, Rows
from ...errors import CacheError
from ...layers import Layer
from ..budgets import keep_best
from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same, true
from ..ground import TOKENS, decoded, full_logits, kv, small_model, text
from ..quantising import excess, stored


@dataclass(eq=False, repr=False)
class Arkv(Evicting):
    """Keep `budget` tokens, a share of them in full and the rest in `bits`; arXiv 2603.08727."""

    policy = "arkv"
    watches = True
    per_head = True
    numbers = Evicting.numbers | {"rounded": np.float64}

    bits: int = 4
    original: float = -1.0

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget, "original": 1.0}, {"budget": budget, "original": 0.5, "bits": 2}]

    def check(self) -> None:
        super().check()
        if self.original != -1.0 and not 0 <= self.original <= 1:
            raise CacheError(f"original is {self.original!r}, expected a share from 0 to 1, or -1")

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        received = to_numpy(pattern, dtype=np.float64).sum(axis=1)  # (H, S)
        groups = layer.config.num_key_value_heads
        keys = received.shape[-1]
        by_group = received.reshape(groups, -1, keys).sum(axis=1)
        self.rows[layer.index].scores[:keys] += by_group.T

    def priority(self, rows: Rows) -> np.ndarray:
        newest = np.arange(len(rows))[:, None] == len(rows) - 1
        return np.where(newest, np.inf, rows.scores)

    def share(self, rows: Rows) -> float:
        """How much of the budget keeps full precision."""
        if self.original >= 0:
            return self.original
        weights = rows.scores / rows.scores.sum(axis=0)
        logs = np.log(np.where(weights > 0, weights, 1.0))
        spread = -(weights * logs).sum(axis=0).mean() / np.log(max(2, len(rows)))
        return float(np.clip(spread, 0.0, 1.0))

    def evict(self, layer: Layer) -> None:
        rows = self.rows[layer.index]
        share = self.share(rows)
        keep_best(rows, self._checked_priority(rows), self.budget)
        exact = round(share * min(self.budget, len(rows)))
        ranks = np.argsort(np.argsort(-self.priority(rows), axis=0, kind="stable"), axis=0)
        coarse = (ranks >= exact) & (rows.numbers["rounded"] == 0)
        rows.numbers["rounded"][coarse] = 1.0
        for name in ("keys", "values"):
            held = getattr(rows, name)  # a view, which is written to
            whole = to_numpy(held)
            few = stored(whole, self.bits, layer)
            held[...] = self._xp.asarray(np.where(coarse[..., None], few, whole))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    whole = decoded(Arkv(model.weights, TOKENS, original=1.0))
    cache = Arkv(model.weights, 7, original=0.5)
    logits = decoded(cache)
    rows = cache.rows[0]
    coarse = int(rows.numbers["rounded"][:, 0].sum())
    states = [len(rows) - coarse, coarse, TOKENS - len(rows)]
    keys, _ = kv(model, text())
    kept = keys[0][rows.positions[:, 0], 0]
    marked = rows.numbers["rounded"][:, 0] == 1
    off = excess(kept[marked], to_numpy(rows.keys)[marked, 0], 4)
    spread = Arkv(model.weights, 7)
    decoded(spread)
    return [
        same("all tokens as they are = the full cache", whole, full_logits()),
        true("kept, rounded and gone are all tokens", sum(states) == TOKENS, f"{states}"),
        true("some of each", min(states) > 0, f"{states}"),
        at_most("a rounded key of layer 0 is off by half a step", off, 1.0),
        same("the others have their bits", to_numpy(rows.keys)[~marked, 0], kept[~marked]),
        other("a budget of 7, half of it rounded", logits, full_logits()),
        true("a share of the layer's own", 0 < spread.share(spread.rows[0]) < 1, "between 0 and 1"),
    ]


ENTRY = Entry(
    name="arkv",
    title="ARKV",
    arxiv="2603.08727",
    kind=Kind.EVICTING,
    state="the rows kept, which of them are rounded, and the attention each has got",
    verdict=Exactness.LOSSY,
    reason="Three states partition the tokens. All in the first is the full cache; a rounded "
    "number is off by half a step, and T9 holds of what is not rounded.",
    read="abstract, and the authors' code: its cache and its scores",
    policy=Arkv,
    demonstrate=demonstrate,
)

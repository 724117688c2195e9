"""TIM: a subtask that is done leaves the working memory, its span of tokens with it.

arXiv 2507.16784. *Rule.* When a subtask's text is complete, its keys and values are pruned; what
follows goes on without them.

*Departures.* Spans are given; the paper's model is trained to write them. Positions stay, where the
paper uses them again for what follows.

*Its authors claim* reasoning beyond the context, with up to 90 % of the cache pruned. *Here:*
evicting is not forgetting. The rows that stay are those of a text that never had the span at layer
0 alone; above, the streams of later tokens have taken it up. So the state holds what was pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import to_numpy
from ...caches import Evicting, Rows
from ...layers import Layer
from ..budgets import keep_best
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, decoded, evicting_comparisons, kv, kv_at, small_model, text

PRUNED = (3, 7)  # positions of the span


@dataclass(eq=False, repr=False)
class Tim(Evicting):
    """Drop the span from `start` up to `stop` once a token behind it has come; arXiv 2507.16784."""

    policy = "tim"

    start: int = 1
    stop: int = 3

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "start": 2, "stop": 8}]

    def inside(self, rows: Rows) -> np.ndarray:
        """Which rows are of the span, if it is complete; ``(S, G)``."""
        positions = rows.positions
        within = (positions >= self.start) & (positions < self.stop)
        return within & (positions.max(initial=0) >= self.stop)

    def priority(self, rows: Rows) -> np.ndarray:
        return np.where(self.inside(rows), -1, rows.positions)

    def evict(self, layer: Layer) -> None:
        rows = self.rows[layer.index]
        left = len(rows) - int(self.inside(rows)[:, 0].sum())
        keep_best(rows, self._checked_priority(rows), min(self.budget, left))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    start, stop = PRUNED
    kept = np.r_[0:start, stop:TOKENS]
    _, values = kv(small_model(), text())
    _, never = kv_at(small_model(), text(), kept)
    cache = Tim(small_model().weights, TOKENS, start=start, stop=stop)
    decoded(cache)
    places = cache.rows[0].positions[:, 0]
    left = to_numpy(cache.rows[0].values)
    return [
        true(
            "what is left is the text but for the span",
            places.tolist() == kept.tolist(),
            f"{places}",
        ),
        same("layer 0: as if it had never been", left, never[0]),
        same("layer 1, before the span: likewise", values[1][:start], never[1][:start]),
        other("layer 1, behind it: not so", values[1][stop:], never[1][start:]),
        *evicting_comparisons(Tim)[1:],
    ]


ENTRY = Entry(
    name="tim",
    title="TIM",
    arxiv="2507.16784",
    kind=Kind.EVICTING,
    state="the rows kept, whose streams have taken up the span that was pruned",
    verdict=Exactness.LOSSY,
    reason="Evicting is not forgetting: rows that stay are those of a text without the span at "
    "layer 0, and differ from layer 1 on.",
    cure="make the rows behind the span again, from layer 1 on",
    read="abstract, and the README of the authors' engine, which is not public",
    theorems=("A5", "T8", "T9"),
    policy=Tim,
    demonstrate=demonstrate,
)

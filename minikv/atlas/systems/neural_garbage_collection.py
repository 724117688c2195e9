"""Neural Garbage Collection: the model itself decides what to forget, trained by its answers.

Li et al. 2026, arXiv 2604.18002. *Rule.* Every `pause` tokens, entries are dropped that the model
chooses.

*Departures.* The choice is drawn from a seed, where the paper trains it with reinforcement
learning: it stands for every schedule that a model may learn. Between two pauses rows gather within
the budget. By others' notes the model's own attention scores each entry, and which ones stay is
sampled by these scores; the draw here does not look at attention.

*Its authors claim* accuracy near that of the full cache with two to three times less of it; and
call the full cache an upper bound. *Here:* whatever is chosen, one output moves by T9 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...caches import Evicting, Rows
from ...layers import Layer
from ...numbers import whole
from ..budgets import keep_best
from ..entry import Comparison, Entry, Exactness, Kind, other
from ..ground import decoded, evicting_comparisons, small_model


@dataclass(eq=False, repr=False)
class Drawn(Evicting):
    """Drop whatever a draw says, `pause` tokens at a time; arXiv 2604.18002."""

    policy = "neural_garbage_collection"
    per_head = True

    seed: int = 0
    pause: int = 2

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "seed": 7, "pause": 1}]

    def check(self) -> None:
        super().check()
        self.seed = whole("seed", self.seed, 0)
        self.pause = whole("pause", self.pause)

    def priority(self, rows: Rows) -> np.ndarray:
        rng = np.random.default_rng([self.seed, rows.layer.index])
        worth = rng.random((rows.layer.config.max_position_embeddings, rows.positions.shape[1]))
        return np.take_along_axis(worth, rows.positions, axis=0)

    def evict(self, layer: Layer) -> None:
        rows = self.rows[layer.index]
        if len(rows) > self.budget:
            keep_best(rows, self._checked_priority(rows), max(1, self.budget - self.pause + 1))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    weights = small_model().weights
    one = decoded(Drawn(weights, 7, seed=1))
    two = decoded(Drawn(weights, 7, seed=2))
    return [*evicting_comparisons(Drawn), other("two schedules", one, two)]


ENTRY = Entry(
    name="neural_garbage_collection",
    title="Neural Garbage Collection",
    arxiv="2604.18002",
    kind=Kind.EVICTING,
    state="the rows kept: the schedule is part of the state",
    verdict=Exactness.LOSSY,
    reason="Any schedule moves one output by T9 at most; which one is drawn, not learnt.",
    read="abstract, and others' notes of the paper",
    theorems=("T9",),
    policy=Drawn,
    demonstrate=demonstrate,
)

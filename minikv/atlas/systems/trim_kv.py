"""TRIM-KV: each token gets a gate when it is made, and its score decays with age.

Bui et al. 2025, arXiv 2512.03324. *Rule.* A token of gate beta is worth ``beta ** age``; where
there are more than the budget, the least worth go.

*Departures.* The gates are given (`gates` of the first tokens, `gate` of all others), where the
paper learns them, one for each token, layer and head, by distillation; attention is not weighed by
them, as in the paper's inference. The code lets some hundreds of tokens gather beyond the budget
before it cuts, and may deal one budget to all heads of a layer or all layers; here each layer keeps
its budget, call by call. So what is shown is the rule and not what is learnt.

*Its authors claim* that learnt scores recover sinks and sliding windows, and in places a better
answer than the full cache gives; not that bits stay. With given gates the first is a theorem: equal
gates keep the sets of a window, gates of 1 for the first tokens those of StreamingLLM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...caches import Evicting, Rows, StreamingLLM, Window
from ...errors import CacheError
from ..entry import Comparison, Entry, Exactness, Kind, true
from ..ground import evicting_comparisons, positions_kept, small_model


@dataclass(eq=False, repr=False)
class TrimKV(Evicting):
    """Keep the tokens of the highest gate to the power of their age; arXiv 2512.03324."""

    policy = "trim_kv"

    gate: float = 0.9
    gates: tuple[float, ...] = (1.0, 0.5)

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [
            {"budget": budget},
            {"budget": budget, "gates": (), "gate": 0.5},
            {"budget": budget, "gates": (0.99, 0.3, 0.8, 1.0), "gate": 0.7},
        ]

    def check(self) -> None:
        super().check()
        self.gates = tuple(self.gates)
        for gate in (self.gate, *self.gates):
            if not 0 < gate <= 1:
                raise CacheError(f"a gate is {gate!r}, expected a number above 0 and at most 1")

    def priority(self, rows: Rows) -> np.ndarray:
        positions = rows.positions
        logs = np.full(positions.shape, math.log(self.gate))
        for position, gate in enumerate(self.gates):
            logs[positions == position] = math.log(gate)
        age = positions.max() + 1 - positions
        return logs * age


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    weights = small_model().weights
    budget = 6
    window = positions_kept(Window(weights, budget))
    sinks = positions_kept(StreamingLLM(weights, budget, sinks=2, reposition=False))
    equal = positions_kept(TrimKV(weights, budget, gate=0.9, gates=()))
    opened = positions_kept(TrimKV(weights, budget, gate=0.9, gates=(1.0, 1.0)))
    return [
        *evicting_comparisons(TrimKV),
        true("equal gates keep the sets of a window", equal == window, f"{equal[0][0]}"),
        true("two gates of 1 keep StreamingLLM's sets", opened == sinks, f"{opened[0][0]}"),
        true("gates that differ keep others", opened != window, f"{window[0][0]}", control=True),
    ]


ENTRY = Entry(
    name="trim_kv",
    title="TRIM-KV",
    arxiv="2512.03324",
    kind=Kind.EVICTING,
    state="the rows kept; the gates are weights",
    verdict=Exactness.LOSSY,
    reason="With given gates: equal ones are a window, ones for the first tokens StreamingLLM. "
    "Gates are not learnt here.",
    read="abstract, and the authors' code: its cache",
    theorems=("T9",),
    policy=TrimKV,
    demonstrate=demonstrate,
)

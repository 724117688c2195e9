"""Attention sinks and a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import NewKeys, NewValues, Positions, Stream, Turns
from ..errors import CacheError
from ..layers import Layer
from ..memory import Attended
from ..numbers import whole
from ..rotary import Rotary
from .evicting import Evicting, Rows
from .registry import register
from .saving import expect

LONGEST = 2**40  # tokens: no text is as long


@register
@dataclass(eq=False, repr=False)
class StreamingLLM(Evicting):
    """Keep the first `sinks` tokens and the newest ``budget - sinks``.

    Xiao et al. 2023, arXiv 2309.17453, section 3.2.

    Parameters
    ----------
    weights : Weights
    budget : int
        Tokens kept, sinks included.
    sinks : int
        Four in the paper.
    reposition : bool
        Count positions within the cache, as the paper does (a text may then outgrow the context);
        otherwise keys and queries keep their positions in the text.

    Notes
    -----
    Keys are stored as they were made and turned by the distance they moved when they are read,
    so that moving one position a step does not pile up rounding; the authors' code stores them
    unturned, which is the same but for rounding. As there, eviction follows attention, so that a
    token fed alone sees `budget` tokens and itself. Departure: the tokens of one call see all of
    that call, and their positions count from what is stored before it.
    """

    policy = "streaming_llm"
    numbers = Evicting.numbers | {"made": np.int64}  # the position that a key was turned to

    sinks: int = 4
    reposition: bool = True

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        sinks = budget // 2
        return [
            {"budget": budget, "sinks": sinks},
            {"budget": budget, "sinks": sinks, "reposition": False},
            {"budget": budget, "sinks": 0},
        ]

    def check(self) -> None:
        super().check()
        self.sinks = whole("sinks", self.sinks, 0, error=CacheError)
        self.reposition = bool(self.reposition)
        if self.budget <= self.sinks:
            raise CacheError(f"budget is {self.budget}, expected more than the {self.sinks} sinks")

    def reset(self) -> None:
        super().reset()
        self._turns: dict[Rotary, tuple[bytes, Turns, Turns]] = {}

    @property
    def next_position(self) -> int:
        if self.reposition:
            return self.stored
        return self.seen

    @property
    def longest(self) -> int:
        if self.reposition:
            return LONGEST
        return super().longest

    def priority(self, rows: Rows) -> np.ndarray:
        return np.where(rows.positions < self.sinks, np.inf, rows.positions)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        text_positions, keys, values = super().update(layer, positions, residual, k, v)
        made = self.rows[layer.index].numbers["made"]
        made[len(made) - len(positions) :] = positions[:, None]
        if not self.reposition:
            return text_positions, keys, values
        places = np.arange(len(made))
        moved = made[:, 0] - places  # heads are alike
        if moved.any():
            cos, sin = self._turned_back(layer.rotary, moved)
            keys = layer.arithmetic.settle(layer.arithmetic.rope(keys, cos, sin))
        return places, keys, values

    def _turned_back(self, rotary: Rotary, moved: Positions) -> tuple[Turns, Turns]:
        """The turns that undo so many positions each, made once for layers that are alike."""
        told = moved.tobytes()
        known = self._turns.get(rotary)
        if known is None or known[0] != told:
            cos, sin = rotary(moved)
            known = told, cos, -sin
            self._turns[rotary] = known
        return known[1:]

    def _check_rows(self, rows: Rows) -> None:
        super()._check_rows(rows)
        made = rows.numbers["made"]
        places = np.arange(len(rows))[:, None]
        possible = (made >= places) & (made <= rows.positions) & (made == made[:, :1])
        possible &= made < self.weights.config.max_position_embeddings
        expect(bool(possible.all()), "a key was made where it cannot have been made")

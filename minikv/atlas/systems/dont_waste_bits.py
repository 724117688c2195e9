"""Don't Waste Bits: every token's keys and values get 2, 4, 8 or all bits, as a controller says.

Haeri Boroujeni et al. 2026, arXiv 2604.04722, measured by its authors on SmolLM. *Rule.* A
controller reads a token's frequency, a quality score, the variance of its attention and its
entropy, and says how many bits its row of the cache gets.

*Departures.* The controller is given, where the paper learns one: a token that has come before in
the text is worth 4 bits, a new one 8, and every eighth position all. Rows are rounded where they
are made, so that a token sees its own row rounded too.

*Its authors claim* accuracy near that of 16 bits, and better than a fixed width; others measured it
again and report that this fixed width of 4 bits has 8 levels. *Here:* each number is off by half a
step at most, and one head's output by the distortion bound; and whatever the controller says, the
bits are not the full cache's, where KV-Direct's recomputation from residuals, beside it, has them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, TokenIds
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, other, same
from ..ground import decoded, full_logits, kv, new_full, small_model, text
from ..quantising import FULL_BITS, Quantised, excess, head_moves, stored


class ByToken(Quantised):
    """Bits by token: `first` for a token that is new to the text, `again` for one that is not."""

    def __init__(self, inner: Cache, *, first: int = 8, again: int = 4) -> None:
        super().__init__(inner)
        self.first = first
        self.again = again
        self.ids: list[int] = []

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        self.ids = [*self.ids, *ids.tolist()]
        return super().begin(ids)

    def bits_of(self, position: int) -> int:
        """What the controller says of a token."""
        if position % 8 == 7:
            return FULL_BITS
        known = self.ids[position] in self.ids[:position]
        return self.again if known else self.first

    def kept(
        self, layer: Layer, positions: Positions, k: NewKeys, v: NewValues
    ) -> tuple[np.ndarray, np.ndarray]:
        keys = [
            self.few(k[row : row + 1], self.bits_of(position), layer)
            for row, position in enumerate(positions.tolist())
        ]
        values = [
            self.few(v[row : row + 1], self.bits_of(position), layer)
            for row, position in enumerate(positions.tolist())
        ]
        return np.concatenate(keys), np.concatenate(values)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    keys, _ = kv(model, text())
    layer = model.layers[0]
    rows = keys[0].astype(np.float64)
    _, activations = model.run_with_cache(text())
    four_bits = ByToken(new_full(), first=4, again=4)
    moves = head_moves(activations, four_bits, text())[0]
    moved, bound, _ = max(moves, key=lambda head: head[0] / head[1])
    lossless = model.new_cache("residual", budget=0, checkpoints="every")
    all_bits = decoded(ByToken(new_full(), first=FULL_BITS, again=FULL_BITS))
    off = excess(rows, stored(keys[0], 4, layer), 4)
    wrong = excess(rows, stored(keys[0], 3, layer), 4)
    return [
        same("all bits for all tokens = the full cache", all_bits, full_logits()),
        at_most("4 bits: |x - stored| / (half a step), layer 0", off, 1.0),
        above("3 bits against the bound of 4", wrong, 1.0),
        at_most("4 bits: the head that moves furthest", moved, bound),
        other("4 and 8 bits, beside the full cache", decoded(ByToken(new_full())), full_logits()),
        same("recomputed from residuals = the full cache", decoded(lossless), full_logits()),
    ]


ENTRY = Entry(
    name="dont_waste_bits",
    title="Don't Waste Bits",
    arxiv="2604.04722",
    kind=Kind.QUANTISING,
    state="the rounded rows, and what the controller has seen",
    verdict=Exactness.BOUNDED,
    reason="Each number is off by half a step, a head's output by 2 tanh(delta / 2) max|v| + eta; "
    "the full cache's bits are lost. The controller is given.",
    cure="recompute keys and values from residuals: T1",
    read="abstract, and others' report of measuring it again",
    theorems=("A2", "T1", "T3"),
    counterexamples=("quantised_cache",),
    caches={"8, 4 or all bits by token": lambda model: ByToken(model.new_cache("full"))},
    demonstrate=demonstrate,
)

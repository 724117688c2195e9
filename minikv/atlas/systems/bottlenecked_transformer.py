"""Bottlenecked Transformer: at each line's end, a second model rewrites the cache in place.

arXiv 2505.16950. *Rule.* A cache processor, itself a transformer and not causal, rewrites keys and
values of the newest tokens and of the best older ones, now and then.

*Departures.* The processor halves the values of the rows that it picks, the newest `ROWS` of each
call, where the paper trains it. Keys and older rows are left as they are; by others' notes the
paper rewrites all rows of the line and those older ones that it attended to most.

*Its authors claim* up to 6.6 points more in reasoning. *Here:* after the first rewrite, making rows
again from their streams gives the old ones back, so that the cache is a state of its own; a rewrite
that changes nothing is the full cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, Stream, to_numpy
from ...layers import Layer
from ...memory import Attended
from ...verify.memories import Wrapped
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import TOKENS, decoded, feed, full_logits, new_full, small_model, text

ROWS = 3


class Rewritten(Wrapped):
    """After each call, the values of its newest rows are multiplied by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__(new_full())
        self.factors = np.ones(TOKENS, dtype=np.float32)
        self.factor = factor

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        attended, keys, values = super().update(layer, positions, residual, k, v)
        factors = self.factors[: len(attended), None, None]
        return attended, keys, to_numpy(layer.arithmetic.settle(to_numpy(values) * factors))

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        seen = self.inner.seen
        self.factors[max(seen - ROWS, seen - tokens) : seen] *= np.float32(self.factor)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    rewritten = decoded(Rewritten(0.5))
    again = decoded(Rewritten(0.5))
    replayed = decoded(small_model().new_cache("residual", budget=0, checkpoints="every"))
    other_calls = feed(small_model(), Rewritten(0.5), text(), [5, 5, 4])
    return [
        same("a rewrite that changes nothing", decoded(Rewritten(1.0)), full_logits()),
        other("rows made again from their streams", replayed, rewritten),
        same("the same calls, the cache kept", again, rewritten),
        other("the same text in other calls", other_calls, rewritten),
    ]


ENTRY = Entry(
    name="bottlenecked_transformer",
    title="Bottlenecked Transformer",
    arxiv="2505.16950",
    kind=Kind.STATE,
    state="the streams and the rewritten cache, which depends on when it was rewritten",
    verdict=Exactness.REFUTES,
    reason="After the first rewrite, keys and values are no projection of the stream; a rewrite "
    "that changes nothing is the full cache.",
    cure="none: the cache is a state",
    read="abstract, and others' notes of the paper",
    theorems=("T1", "T3"),
    counterexamples=("rewritten_kv",),
    demonstrate=demonstrate,
)

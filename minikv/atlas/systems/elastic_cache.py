"""Elastic-Cache: without a causal mask the past changes, and rows are made again in time.

arXiv 2510.14973, of language models that diffuse. *Rule.* All tokens see all tokens. A window of
the tokens that come next is computed, the others' rows are kept. Where attention to the tokens that
get most of it has turned, its cosine below a bound, rows of all layers above are made again.

*Departures.* A random decoder without its mask stands for a model that diffuses; a token in the
middle is replaced, as a step of denoising does; when to refresh is given.

*Its authors claim* up to 45 times the speed at hardly any loss. *Here:* causality is the hypothesis
that is missing. With the mask no row before the change moves, at any layer; without it they move
from layer 1 on. A refresh of layer 1 and above is exact, and none is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, Stream
from ...decoder import Span, block
from ...layers import Layer
from ...memory import Attended
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import kv, small_model, text
from ..reuse import KV, Mixed
from ..routes import stream_of

CHANGED = 8


class Unmasked(Mixed):
    """Every token sees every row: keys are said to be at position 0.

    Rows are written at layer `first` and above; below, that of the changed token alone.
    """

    def __init__(self, old: KV, first: int) -> None:
        super().__init__(old)
        self.first = first

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        written = positions
        if layer.index < self.first:
            written = np.array([CHANGED])
        places, keys, values = super().update(layer, written, residual, k[written], v[written])
        return np.zeros(len(places), dtype=int), keys, values


def refreshed(ids: Sequence[int], old: KV, first: int) -> KV:
    """The cache after `CHANGED` is another token: all rows made again from layer `first` on."""
    memory = Unmasked(old, first)
    stream = stream_of(small_model(), ids)
    positions = np.arange(len(ids))
    for layer in small_model().layers:
        spans = [Span(slice(0, len(ids)), positions, memory)]
        stream = block(layer, stream, positions, spans)
    return memory.keys, memory.values


def unmasked(ids: Sequence[int]) -> KV:
    """The cache of a text that all tokens see."""
    nothing = kv(small_model(), ids)
    return refreshed(ids, nothing, 0)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    other_text = (*text()[:CHANGED], (text()[CHANGED] + 1) % 97, *text()[CHANGED + 1 :])
    before, after = unmasked(text()), unmasked(other_text)
    causal, changed = kv(small_model(), text()), kv(small_model(), other_text)
    fresh = refreshed(other_text, before, 1)
    stale = refreshed(other_text, before, 2)
    return [
        same(
            "with the mask: rows before the change, layer 1",
            changed[1][1][:CHANGED],
            causal[1][1][:CHANGED],
        ),
        same("without it: other rows, layer 0", after[1][0][:CHANGED], before[1][0][:CHANGED]),
        other("without it: other rows, layer 1", after[1][1][:CHANGED], before[1][1][:CHANGED]),
        same("refreshed from layer 1 on", fresh[1][1], after[1][1]),
        other("not refreshed", stale[1][1], after[1][1]),
    ]


ENTRY = Entry(
    name="elastic_cache",
    title="Elastic-Cache",
    arxiv="2510.14973",
    kind=Kind.STATE,
    state="all streams of all tokens: every step is a function of the whole text",
    verdict=Exactness.REFUTES,
    reason="Without causality the past changes from layer 1 on; refreshing everything from there "
    "is exact.",
    cure="refresh every row of every layer above 0",
    read="abstract, and others' code of its algorithm",
    theorems=("T8",),
    counterexamples=("no_mask",),
    demonstrate=demonstrate,
)

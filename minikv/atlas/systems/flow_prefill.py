"""FlowPrefill: a long prompt is put aside between two operators, and taken up again.

Hsieh et al. 2026, arXiv 2602.16603. *Rule.* A prefill may be interrupted at the border of any
operator, when another request comes, and goes on from there.

*Departures.* Borders are those of layers; there is no scheduler, and the other request is one call.

*Its authors claim* up to 5.6 times the goodput. *Here* what must be kept at a border: the stream
behind the last layer, and the rows of the layers that are done. With both, what follows has the
bits of an uninterrupted pass; without the rows, the next token has not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...decoder import Span, block
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import feed, full_logits, new_full, small_model, text
from ..routes import logits_of, stream_of

PREFIX = 13  # all tokens but the last


def resumed(keep_rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """A prompt interrupted between its layers: its logits, and those of the token behind it."""
    model = small_model()
    ids = text()[:PREFIX]
    cache = new_full()
    _, positions = cache.begin(np.array(ids))
    first, second = model.layers
    span = Span(slice(0, PREFIX), positions, cache)
    stream = block(first, stream_of(model, ids), positions, [span])
    aside = to_numpy(stream).copy()
    feed(model, new_full(), text(1), [len(text(1))])  # another request comes between
    behind = cache
    if not keep_rows:
        behind = new_full()
        behind.begin(np.array(ids))
        nothing = np.zeros((PREFIX, 2, 6), np.float32)
        behind.update(first, positions, aside, nothing, nothing)
    out = block(second, aside, positions, [Span(slice(0, PREFIX), positions, behind)])
    behind.advance(PREFIX)
    next_token = model.forward([text()[PREFIX:]], [behind], "all")
    return logits_of(model, out), to_numpy(next_token)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    prompt, after = resumed(keep_rows=True)
    _, lost = resumed(keep_rows=False)
    return [
        same("the prompt, interrupted between its layers", prompt, full_logits()[:PREFIX]),
        same("the token behind it", after, full_logits()[PREFIX:]),
        other("without the rows of the layer that was done", lost, full_logits()[PREFIX:]),
    ]


ENTRY = Entry(
    name="flow_prefill",
    title="FlowPrefill",
    arxiv="2602.16603",
    kind=Kind.SPLITTING,
    state="the stream at the border, and the rows of the layers that are done",
    verdict=Exactness.EXACT,
    reason="Interrupted at the border of a layer and taken up again, a prefill has the same bits.",
    read="abstract, and others' notes of the paper",
    theorems=("T2", "T5"),
    demonstrate=demonstrate,
)

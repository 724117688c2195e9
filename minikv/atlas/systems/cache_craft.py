"""Cache-Craft: chunks of documents are cached once and put wherever a question needs them.

Agarwal et al. 2025, arXiv 2502.15734. *Rule.* The cache of a chunk is reused at another place and
behind other chunks; a part of its tokens is made again: those that looked most at other chunks, so
many as the chunk looked out rather than in, less where the same chunks stand before it in the same
order.

*Departures.* Which rows to make is the share of the first ones, half of them; no storage tiers.

*Its authors claim* less work in prefill at the same quality. *Here:* moved to another place,
a chunk's values have the same bits at layer 0. Its keys there have them if they are made from the
stream at the new place, and not if they are turned by the distance (T1, not rotation). Above, naive
reuse is wrong, and making all rows is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...decoder import embed
from ...projection import kv_from_residual
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import TOKENS, kv, small_model, text
from ..reuse import mended, stacked

CHUNK = 8  # tokens of the chunk; the others come before it


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    layer = model.layers[0]
    before = TOKENS - CHUNK
    chunk = text()[before:]
    alone = kv(model, chunk)
    asked = (*text(1)[:before], *chunk)
    exact = kv(model, asked)
    here = np.arange(CHUNK)
    stream = embed(model.weights, np.array(chunk))
    made = to_numpy(kv_from_residual(stream, here + before, layer)[0])
    cos, sin = layer.rotary(np.full(CHUNK, before))
    turned = to_numpy(layer.arithmetic.settle(layer.arithmetic.rope(alone[0][0], cos, sin)))
    moved = [
        [np.concatenate([rows[:before], own]) for rows, own in zip(part, mine, strict=True)]
        for part, mine in zip(kv(model, asked), alone, strict=True)
    ]
    everything, _ = mended(model, (moved[0], moved[1]), asked, np.ones((2, TOKENS), dtype=bool))
    some = np.tile(np.arange(TOKENS) < before + CHUNK // 2, (2, 1))
    part, _ = mended(model, (moved[0], moved[1]), asked, some)
    return [
        same("layer 0: values of a moved chunk", alone[1][0], exact[1][0][before:]),
        same("keys made from the stream at the new place", made, exact[0][0][before:]),
        other("keys turned by the distance", turned, exact[0][0][before:]),
        other("layer 1: values of a moved chunk", alone[1][1], exact[1][1][before:]),
        same("all rows made again", stacked(everything), stacked(exact)),
        other("half of the chunk's rows made again", stacked(part), stacked(exact)),
    ]


ENTRY = Entry(
    name="cache_craft",
    title="Cache-Craft",
    arxiv="2502.15734",
    kind=Kind.REUSING,
    state="the chunk's rows, where they came from, and which were made again",
    verdict=Exactness.LOSSY,
    reason="A moved chunk's values are exact at layer 0, its keys if made from the stream; above, "
    "only making all rows is.",
    cure="keep streams, not keys: T1 makes keys at any place",
    read="abstract, and others' code of its equations",
    theorems=("A4", "T1", "T4"),
    counterexamples=("unplaced_checkpoint",),
    demonstrate=demonstrate,
)

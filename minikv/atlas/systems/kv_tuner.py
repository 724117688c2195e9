"""KVTuner: every layer has its own pair of bits, one for keys and one for values.

Li et al. 2025, arXiv 2502.04420. *Rule.* Pairs of precision are searched once, offline, layer by
layer, for the least error at a given number of bits; decoding then uses them as they are.

*Departures.* The search is over all of `PAIRS` for all layers, on one short text, by the mean move
of the logits; the paper prunes and clusters layers first, on samples of its tasks. Rows are rounded
where they are made.

*Its authors claim* nearly no loss at 3.25 bits, and that keys need more bits than values. *Here:*
16 bits are the full cache; what a rounded value moves is at most what it is off, and what rounded
keys move is bounded through softmax, by ``2 tanh(delta / 2) max|v|``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from ...arrays import Positions, to_numpy
from ...caches import Cache
from ...layers import Layer
from ..entry import Entry, Finding, Kind, Verdict, at_most, other, same, true
from ..ground import decoded, full_logits, kv, new_full, small_model, text
from ..quantising import Quantised, distortion, stored

PAIRS = ((16, 16), (8, 4), (4, 8))
MOST = 12.0  # bits of a key and a value together, on average


class ByLayer(Quantised):
    """Bits of keys and values by layer."""

    def __init__(self, inner: Cache, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__(inner)
        self.pairs = pairs

    def bits(self, layer: Layer, positions: Positions) -> tuple[int, int]:
        return self.pairs[layer.index]


def error(pairs: Sequence[tuple[int, int]]) -> float:
    """How far the logits of the text move, on average."""
    logits = small_model().forward([text()], [ByLayer(new_full(), pairs)], "all")
    return float(np.abs(to_numpy(logits) - full_logits()).mean())


@functools.cache
def searched() -> tuple[tuple[int, int], ...]:
    """The pairs of both layers with the least error within the bits."""
    fitting = [
        pairs
        for pairs in itertools.product(PAIRS, repeat=2)
        if sum(map(sum, pairs)) / len(pairs) <= MOST
    ]
    return min(fitting, key=error)


def head_moved(key_bits: int, value_bits: int) -> tuple[float, float]:
    """Layer 0, last token, first head: how far it moves, and the bound."""
    model = small_model()
    keys, values = (rows[0] for rows in kv(model, text()))
    _, activations = model.run_with_cache(text())
    q = activations["blocks.0.attn.hook_rot_q"][-1, 0].astype(np.float64)
    q = q * model.config.attention_scale
    layer = model.layers[0]
    coarse = stored(keys, key_bits, layer)[:, 0].astype(np.float64)
    worth = stored(values, value_bits, layer)[:, 0].astype(np.float64)
    scores = (keys[:, 0].astype(np.float64) @ q, coarse @ q)
    return distortion(scores, (values[:, 0].astype(np.float64), worth))


def demonstrate() -> Sequence[Finding]:
    """The comparisons of the entry, controls among them."""
    best = searched()
    worst = ((2, 8), (2, 8))
    values = head_moved(16, 4)
    keys = head_moved(4, 16)
    return [
        same(
            "16 bits = the full cache", decoded(ByLayer(new_full(), PAIRS[:1] * 2)), full_logits()
        ),
        at_most("values of 4 bits: a head moves by what they are off", *values),
        at_most("keys of 4 bits: by 2 tanh(delta / 2) max|v|", *keys),
        true("the searched pairs fit", sum(map(sum, best)) / 2 <= MOST, f"{best}"),
        true("and move less than others", error(best) < error(worst), f"{worst}", control=True),
        other("the searched pairs", decoded(ByLayer(new_full(), best)), full_logits()),
    ]


ENTRY = Entry(
    name="kv_tuner",
    title="KVTuner",
    arxiv="2502.04420",
    kind=Kind.QUANTISING,
    state="the rounded rows; the pairs are weights",
    verdict=Verdict.BOUNDED,
    reason="16 bits are the full cache. Rounded values move one output by what they are off, "
    "rounded keys by 2 tanh(delta / 2) max|v|.",
    cure="recompute keys and values from residuals: T1",
    theorems=("A2", "T1", "T3"),
    counterexamples=("quantised_cache",),
    demonstrate=demonstrate,
)

"""KVTuner: every layer has its own pair of bits, one for keys and one for values.

Li et al. 2025, arXiv 2502.04420. *Rule.* Pairs of precision are searched once, offline, layer by
layer, for the least error at a given number of bits; decoding then uses them as they are. A layer's
pairs of 2, 4 and 8 bits are pruned to some five, layers that are alike share a pair, and what a
search proposes is tried on a task.

*Departures.* One search by steps: all layers begin with the pair of fewest bits, and the layer
whose heads gain most for a bit gets a better one, while bits are left; by the error of the heads of
one short text. No layers are put together, and no task is run. Rows are rounded token by token,
where they are made; the paper also does it by channel, in groups, as KIVI does.

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
from ...model import Model
from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same, true
from ..ground import decoded, full_logits, new_full, small_model, text
from ..quantising import Quantised, head_moves

Pair = tuple[int, int]
PAIRS: tuple[Pair, ...] = tuple(itertools.product((2, 4, 8), (2, 4, 8)))
"""Of bits for keys and for values."""
SAMPLE = "The ferry calls twice a day, and in winter the boats come back before the storm."
"""On which a real model's pairs are searched."""
FEW = 3.25


class ByLayer(Quantised):
    """Bits of keys and values by layer."""

    def __init__(self, inner: Cache, pairs: Sequence[Pair]) -> None:
        super().__init__(inner)
        self.pairs = pairs

    def bits(self, layer: Layer, positions: Positions) -> Pair:
        return self.pairs[layer.index]


def equal(model: Model, pair: Pair) -> ByLayer:
    """An empty cache of a model with one pair for all layers."""
    return ByLayer(model.new_cache("full"), [pair] * len(model.layers))


def errors(model: Model, ids: Sequence[int]) -> dict[Pair, np.ndarray]:
    """How far each pair moves the heads of the last token, beside their length, by layer."""
    _, activations = model.run_with_cache(ids)
    found = {}
    for pair in PAIRS:
        moves = head_moves(activations, equal(model, pair), ids)
        found[pair] = moves[..., 0].sum(axis=1) / moves[..., 2].sum(axis=1)
    return found


def searched(model: Model, ids: Sequence[int], most: float) -> tuple[Pair, ...]:
    """A pair for each layer, of `most` bits a number on average."""
    table = errors(model, ids)
    pairs = [PAIRS[0]] * len(model.layers)
    left = 2 * most * len(pairs) - sum(map(sum, pairs))
    while True:
        steps = []
        for layer, pair in enumerate(pairs):
            for better in PAIRS:
                bits = sum(better) - sum(pair)
                gain = table[pair][layer] - table[better][layer]
                if 0 < bits <= left and gain > 0:
                    steps.append((gain / bits, layer, better))
        if not steps:
            return tuple(pairs)
        _, layer, better = max(steps)
        left -= sum(better) - sum(pairs[layer])
        pairs[layer] = better


@functools.cache
def tuned(model: Model) -> tuple[Pair, ...]:
    """What is found for a model on `SAMPLE`, of `FEW` bits a number on average."""
    assert model.tokenizer is not None
    return searched(model, model.tokenizer.encode(SAMPLE), FEW)


def moved(pairs: Sequence[Pair]) -> float:
    """How far the logits of the text move, on average."""
    logits = small_model().forward([text()], [ByLayer(new_full(), pairs)], "all")
    return float(np.abs(to_numpy(logits) - full_logits()).mean())


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    _, activations = model.run_with_cache(text())
    values, keys = (
        head_moves(activations, equal(model, pair), text())[0, 0, :2] for pair in ((16, 4), (4, 16))
    )
    best = searched(model, text(), 5.0)
    few = ((2, 8), (2, 8))
    bits = sum(map(sum, best)) / 4
    return [
        same("16 bits = the full cache", decoded(equal(model, (16, 16))), full_logits()),
        at_most("values of 4 bits: a head moves by what they are off", *values),
        at_most("keys of 4 bits: by 2 tanh(delta / 2) max|v|", *keys),
        true("the searched pairs have 5 bits a number", bits <= 5.0, f"{best}"),
        true("and move less than others of 5", moved(best) < moved(few), f"{few}", control=True),
        other("the searched pairs", decoded(ByLayer(new_full(), best)), full_logits()),
    ]


ENTRY = Entry(
    name="kv_tuner",
    title="KVTuner",
    arxiv="2502.04420",
    kind=Kind.QUANTISING,
    state="the rounded rows; the pairs are weights",
    verdict=Exactness.BOUNDED,
    reason="16 bits are the full cache. Rounded values move one output by what they are off, "
    "rounded keys by 2 tanh(delta / 2) max|v|.",
    cure="recompute keys and values from residuals: T1",
    read="abstract, and the authors' code: its search",
    theorems=("A2", "T1", "T3"),
    counterexamples=("quantised_cache",),
    caches={
        "8 bits": lambda model: equal(model, (8, 8)),
        "4 bits": lambda model: equal(model, (4, 4)),
        "2 bits": lambda model: equal(model, (2, 2)),
        f"{FEW} bits, searched": lambda model: ByLayer(model.new_cache("full"), tuned(model)),
    },
    demonstrate=demonstrate,
)

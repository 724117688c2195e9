"""SpAtten: tokens that got little attention are pruned for all layers above; few bits come first.

Wang et al. 2021, arXiv 2012.09852, a processor. *Rule.* The attention that a token gets adds up
over the layers; each layer goes on with the best, so that what is pruned stays pruned. Keys are
fetched by their high bits, and by their low bits where these do not decide.

*Departures.* No hardware. `KEEP` says how many tokens each layer reads; pruning is of tokens, not
of heads. High and low bits are those of a float32. The authors' code for decoders does something
else: each layer and head keeps its first and newest tokens and those of the most attention, for
good, which is what H2O does.

*Its authors claim* speed and energy. *Here:* the pruned set grows with the layers; with all tokens
kept it is the full cache; and high and low parts add up to the number, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Pattern, Positions, Queries, to_numpy
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, decoded, full_logits, kv, new_full, small_model, text
from ..reading import Reading, highest, in_place

KEEP = (TOKENS, 9, 5)  # tokens that layers 0, 1 and 2 read


class Cascade(Reading):
    """Each layer reads the tokens that the layers below it attended to most."""

    watches = True

    def __init__(self, inner: Cache, keep: Sequence[int]) -> None:
        super().__init__(inner)
        self.keep = keep
        self.gathered = np.zeros(0)

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        if len(positions) > 1:
            return
        weights = to_numpy(pattern, dtype=np.float64)[:, -1]
        self.gathered = self.gathered + in_place(weights, self.reads[layer.index]).sum(axis=0)

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        everything = np.ones(keys.shape[:2], dtype=bool)
        if layer.index == 0:
            self.gathered = np.zeros(len(keys))
            return everything
        below = self.reads[layer.index - 1][:, 0]
        ranked = np.where(below, self.gathered, -1.0)
        return everything & (highest(ranked, self.keep[layer.index]) & below)[:, None]


def high_part(x: np.ndarray) -> np.ndarray:
    """A float32 without the low half of its digits."""
    return (x.view(np.uint32) & np.uint32(0xFFFFF000)).view(np.float32)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    cascade = Cascade(new_full(3), KEEP)
    logits = decoded(cascade, layers=3)
    whole = decoded(Cascade(new_full(3), (TOKENS,) * 3), layers=3)
    sets = [set(np.flatnonzero(cascade.reads[layer][:, 0]).tolist()) for layer in range(3)]
    keys = kv(small_model(), text())[0][0]
    high = high_part(keys)
    return [
        same("all tokens read = the full cache", whole, full_logits(layers=3)),
        true("layers read less and less", sets[2] < sets[1] < sets[0], f"{[len(s) for s in sets]}"),
        same("high bits and low bits add up", high + (keys - high), keys),
        other("high bits alone", high, keys),
        other("nine and five tokens read", logits, full_logits(layers=3)),
    ]


ENTRY = Entry(
    name="spatten",
    title="SpAtten",
    arxiv="2012.09852",
    kind=Kind.EVICTING,
    state="the full cache; what a layer reads follows from the layers below",
    verdict=Exactness.LOSSY,
    reason="All tokens read and low bits always fetched: the full cache. Pruned sets grow with "
    "the layers. The processor is not built.",
    read="abstract, and the authors' code: its cache for decoders",
    theorems=("T9",),
    demonstrate=demonstrate,
)

"""RLKV: the heads that reasoning needs keep all tokens, the others first and newest ones.

arXiv 2510.08525. *Rule.* A mask over K/V heads: a head that is in it reads the full cache, another
one `sinks` first tokens and the newest.

*Departures.* The mask is given, where the paper learns a gate a head by reinforcement, mixes both
kinds of attention by it, and takes the heads of the largest gates. All rows stay
in memory: the heads that are not in the mask do not see the others' (rows are put where no query
sees them), so that what is shown is the rule and not the bytes. It is no policy of the registry,
whose heads all hold as many rows.

*Its authors claim* 20 to 50 % less cache at the same accuracy in reasoning. *Here:* with all heads
in the mask it is the full cache; the unit is a K/V head, which grouped query heads share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries
from ...caches import Cache
from ...layers import Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import (
    TOKENS,
    Seen,
    bounded_at_layer_0,
    decoded,
    full_logits,
    last_outputs,
    new_full,
)
from ..reading import Reading

BUDGET = 6
SINKS = 2


class HeadMask(Reading):
    """Heads of `mask` read everything, the others `BUDGET` tokens before their own."""

    def __init__(self, inner: Cache, mask: Sequence[bool]) -> None:
        super().__init__(inner)
        self.mask = np.array(mask)

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        place = np.arange(len(keys))[:, None]
        few = (place < SINKS) | (place >= len(keys) - 1 - (BUDGET - SINKS))
        return few | self.mask


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    masked = HeadMask(new_full(), (True, False))
    logits, z = last_outputs(masked)
    reads = masked.reads[0].sum(axis=0).tolist()
    place = np.where(masked.reads[0], np.arange(TOKENS)[:, None], -1)
    return [
        same(
            "all heads in the mask = the full cache",
            decoded(HeadMask(new_full(), (True, True))),
            full_logits(),
        ),
        true("a head outside reads the budget and itself", reads[1] == BUDGET + 1, f"{reads}"),
        true("a head of the mask reads everything", reads[0] == len(logits), f"{reads}"),
        bounded_at_layer_0(Seen(logits, place, z, TOKENS)),
        other("one head of two", logits, full_logits()),
    ]


ENTRY = Entry(
    name="rlkv",
    title="RLKV",
    arxiv="2510.08525",
    kind=Kind.EVICTING,
    state="the rows of each head; the mask is a weight",
    verdict=Exactness.LOSSY,
    reason="All heads in the mask: the full cache. The mask is given, not learnt.",
    read="abstract, and the authors' code: its README",
    theorems=("T9",),
    demonstrate=demonstrate,
)

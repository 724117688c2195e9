"""DELTA: full attention below, one layer that chooses tokens, and layers above that read these.

arXiv 2510.09883. *Rule.* Layers are of three kinds: they read all keys; they read all keys and
choose; they read only what was chosen last. What is chosen are pages of tokens: the newest ones,
and those of the largest sum of what each token got from the head that weighs it most. All keys stay
in the cache, and a prompt is read as usual.

*Departures.* Three layers, one of each kind, where the code takes any list of layers that read all.
Tokens are chosen one by one, `keep` of them, by the sum of their weights over all heads.

*Its authors claim* up to five times fewer tokens attended at the same accuracy. *Here:* the stream
of every layer up to the first sparse one has the full cache's bits, so that the first stream that
differs is the one that this layer writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Array, Keys, Pattern, Positions, Queries, to_numpy
from ...caches import Cache
from ...layers import Hook, Layer
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import TOKENS, decoded, full_logits, new_full
from ..reading import Reading, highest

SPARSE = 2  # the first layer that reads what layer 1 chose


class Delta(Reading):
    """Layer ``SPARSE - 1`` chooses `keep` tokens, the layers above read them."""

    watches = True

    def __init__(self, inner: Cache, keep: int) -> None:
        super().__init__(inner)
        self.keep = keep
        self.picked = np.zeros(0, dtype=bool)

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        if layer.index == SPARSE - 1:
            total = to_numpy(pattern, dtype=np.float64)[:, -1].sum(axis=0)  # (S,)
            self.picked = highest(total, self.keep)

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        everything = np.ones(keys.shape[:2], dtype=bool)
        if layer.index < SPARSE:
            return everything
        return everything & self.picked[:, None]


def streams(into: dict[str, np.ndarray]) -> Hook:
    """A hook that keeps the last call's streams."""

    def look(name: str, value: Array) -> Array:
        if "hook_resid" in name:
            into[name] = to_numpy(value)
        return value

    return look


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    sparse: dict[str, np.ndarray] = {}
    dense: dict[str, np.ndarray] = {}
    logits = decoded(Delta(new_full(3), 5), streams(sparse), layers=3)
    decoded(new_full(3), streams(dense), layers=3)
    into = f"blocks.{SPARSE}.hook_resid_pre"
    out = f"blocks.{SPARSE}.hook_resid_mid"
    everything = decoded(Delta(new_full(3), TOKENS), layers=3)
    full = full_logits(layers=3)
    return [
        same("all tokens chosen = the full cache", everything, full),
        same("five chosen: the stream into the first sparse layer", sparse[into], dense[into]),
        other("the stream that it writes", sparse[out], dense[out]),
        other("the logits", logits, full),
    ]


ENTRY = Entry(
    name="delta",
    title="DELTA",
    arxiv="2510.09883",
    kind=Kind.SELECTING,
    state="the full cache; what is chosen is made anew at each token",
    verdict=Exactness.LOSSY,
    reason="All chosen: the full cache. Else the first stream that differs is the one that the "
    "first sparse layer writes.",
    read="abstract, and the authors' code: its pages and their scores",
    theorems=("T9",),
    demonstrate=demonstrate,
)

"""KVCOMM: how a prefix moves the cache of a passage is remembered, and applied to other passages.

arXiv 2510.12872. *Rule.* Anchors are passages whose cache is known alone and behind a prefix; the
difference is their offset. Behind a new prefix, the offsets of the anchors that are most alike are
blended and added to the passage's own cache.

*Departures.* One passage, at its own positions, and only its own rows: the code also corrects the
words between passages. An anchor's weight is the inverse of the distance of its prefix's mean
embedding, and 1 where the prefix is the same; the code compares the passages, whose prefixes it
does not see: a softmax of how near the anchor's keys are, number by number, and another for values.
It makes a new anchor where no weight stands out.

*Its authors claim* over 70 % reuse between agents without loss of quality. *Here:* behind an
anchor's own prefix the offset is exact, in bits; behind another it is an estimate, off at every
layer above 0, and exact at layer 0, where there is nothing to add.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...decoder import embed
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import kv, small_model, text
from ..reuse import stacked

LENGTH = 5  # tokens of a prefix


def behind(prefix: Sequence[int]) -> np.ndarray:
    """The passage's rows behind a prefix, ``(2, L, T, G, d)`` float64."""
    rows = stacked(kv(small_model(), (*prefix, *text()[LENGTH:])))
    return rows[:, :, LENGTH:].astype(np.float64)


def alike(prefix: Sequence[int], anchor: Sequence[int]) -> float:
    """One over the distance of two prefixes, infinite for the same."""
    weights = small_model().weights
    ours, theirs = (
        to_numpy(embed(weights, np.array(ids))).mean(axis=0) for ids in (prefix, anchor)
    )
    distance = float(np.linalg.norm(ours - theirs))
    return np.inf if distance == 0 else 1 / distance


def estimated(
    prefix: Sequence[int], base: Sequence[int], anchors: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """The passage's rows behind a prefix, from anchors' offsets; float32."""
    alone = behind(base)
    offsets = np.stack([behind(anchor) - alone for anchor in anchors])
    weights = np.array([alike(prefix, anchor) for anchor in anchors])
    if np.isinf(weights).any():
        weights = np.isinf(weights).astype(float)
    blend = np.tensordot(weights / weights.sum(), offsets, axes=1)
    return (alone + blend).astype(np.float32)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    base = text(5)[:LENGTH]
    anchors = [text(seed)[:LENGTH] for seed in (6, 7)]
    new = text(8)[:LENGTH]
    known = estimated(anchors[1], base, anchors)
    guessed = estimated(new, base, anchors)
    exact = behind(new).astype(np.float32)
    return [
        same("behind an anchor's prefix", known, behind(anchors[1]).astype(np.float32)),
        same("behind a new one, layer 0", guessed[:, 0], exact[:, 0]),
        other("behind a new one, layer 1", guessed[:, 1], exact[:, 1]),
        other(
            "the passage alone, layer 1",
            behind(base)[:, 1],
            behind(new)[:, 1],
        ),
    ]


ENTRY = Entry(
    name="kvcomm",
    title="KVCOMM",
    arxiv="2510.12872",
    kind=Kind.REUSING,
    state="the anchors, their offsets, and the passage's own rows",
    verdict=Exactness.LOSSY,
    reason="Behind an anchor's own prefix the offset is exact; behind another it is an estimate "
    "from layer 1 on.",
    cure="compute every row from the first change on",
    read="abstract, and the authors' code: its engine",
    theorems=("T1", "T10"),
    demonstrate=demonstrate,
)

"""InfiniteVGGT: keep the keys that are least like the others, without looking at attention.

Yuan et al. 2026, arXiv 2601.02281, of images in 3D. *Rule.* First tokens are anchors and stay. The
mean of the normalised keys of a head, anchors apart, is what most of them have in common; those go
that have the largest cosine with it.

*Departures.* Tokens of a text in place of frames, and `anchors` of them in place of all of the
first frame; one budget for all layers, where the code deals it by a softmax of how much keys
differ.

*Its authors claim* streams without end in bounded memory, better than others of its kind. *Here:*
what is kept is a function of the keys alone: other queries keep the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import to_numpy
from ...caches import Evicting, Rows
from ...numbers import whole
from ..entry import Comparison, Entry, Exactness, Kind, true
from ..ground import evicting_comparisons, small_model, text


@dataclass(eq=False, repr=False)
class KeyGeometry(Evicting):
    """Keep the keys of the smallest cosine with their mean; arXiv 2601.02281."""

    policy = "infinite_vggt"
    per_head = True

    anchors: int = 1

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "anchors": 0}]

    def check(self) -> None:
        super().check()
        self.anchors = whole("anchors", self.anchors, 0)

    def priority(self, rows: Rows) -> np.ndarray:
        keys = to_numpy(rows.keys, dtype=np.float64)  # (S, G, d)
        norms = np.linalg.norm(keys, axis=-1, keepdims=True)
        directions = keys / np.where(norms > 0, norms, 1.0)
        others = rows.positions[..., None] >= self.anchors
        mean = (directions * others).sum(axis=0) / np.maximum(1, others.sum(axis=0))
        length = np.linalg.norm(mean, axis=-1, keepdims=True)
        likeness = (directions * (mean / np.where(length > 0, length, 1.0))).sum(axis=-1)
        return np.where(rows.positions < self.anchors, np.inf, -np.round(likeness, 9))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()

    def kept(scale: float) -> list[list[int]]:
        """Rows of layer 0 after a prompt whose queries are multiplied."""
        cache = KeyGeometry(model.weights, 6)

        def hook(name: str, value: np.ndarray) -> np.ndarray:
            return value * np.float32(scale) if name.endswith("hook_rot_q") else value

        model.forward([text()], [cache], "none", hook)
        return cache.rows[0].positions.T.tolist()

    first = kept(1.0)
    newest = [[0, 9, 10, 11, 12, 13]] * 2  # and the anchor
    return [
        *evicting_comparisons(KeyGeometry),
        true("other queries keep the same rows", kept(-3.0) == first, f"{first}"),
        true("which are not the newest", first != newest, f"{first}", control=True),
    ]


ENTRY = Entry(
    name="infinite_vggt",
    title="InfiniteVGGT",
    arxiv="2601.02281",
    kind=Kind.EVICTING,
    state="the rows kept, a function of all keys and of no query",
    verdict=Exactness.LOSSY,
    reason="What is kept does not depend on queries; below the full budget bits are lost.",
    read="abstract, and the authors' code: its attention and its budgets",
    theorems=("T9",),
    policy=KeyGeometry,
    demonstrate=demonstrate,
)

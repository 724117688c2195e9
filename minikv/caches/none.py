"""No cache at all: every step runs the whole text again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import NewKeys, NewValues, Positions, Stream, TokenIds
from ..layers import Layer
from ..memory import Attended
from .base import Cache
from .registry import register


@register
@dataclass(eq=False, repr=False)
class NoCache(Cache):
    """Keep the token ids, 4 bytes each, and put all of them through the decoder at each call."""

    policy = "none"

    def reset(self) -> None:
        self.seen = 0
        self._ids = np.empty(0, dtype=np.int32)

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        self._ids = np.concatenate([self._ids[: self.seen], ids.astype(np.int32)])
        return self._ids.astype(np.int64), np.arange(len(self._ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        return positions, k, v

    @property
    def stored(self) -> int:
        return 0

    @property
    def nbytes(self) -> int:
        return 4 * self.seen

    def _tensors(self) -> dict[str, np.ndarray]:
        return {"ids": self._ids[: self.seen]}

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        self._ids = self._checked_ids(tensors["ids"], self.seen)

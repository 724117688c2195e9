"""What the eviction baselines share. None of them is lossless below the full budget (T9)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..errors import CacheError
from .base import Cache, whole


class Evicting(Cache):
    """Keep at most `budget` tokens' K/V at each layer and head; the rest is gone for good.

    The call's tokens attend to what is stored and to themselves; then the layer drops rows until
    `budget` are left. A policy says which by writing `priority`.

    If a call is interrupted, rows may be lost: the next call raises `CacheError` until `reset`.
    """

    per_head: ClassVar[bool] = False  # whether heads keep different tokens

    def __init__(self, weights: Any, budget: int, **parameters: Any) -> None:
        self.budget = whole("budget", budget)
        super().__init__(weights, budget=budget, **parameters)

    def reset(self) -> None:
        self.seen, self._open = 0, False
        layers, groups = range(len(self.weights.layers)), self._row[0]
        self._positions = [np.empty((0, groups), dtype=np.int64) for _ in layers]
        self._scores = [np.empty((0, groups)) for _ in layers]
        self._k = [self._empty(0, *self._row) for _ in layers]
        self._v = [self._empty(0, *self._row) for _ in layers]

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        """``(S, G)`` positions -> ``(S, G)`` priorities; the highest stay, newer ones on a tie."""
        raise NotImplementedError

    def begin(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._open:
            raise CacheError(
                f"a call on this {self.policy} cache was interrupted and may have dropped rows; "
                "call reset() and feed the text again"
            )
        self._open = True
        return super().begin(ids)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._open = False

    def update(
        self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any
    ) -> tuple[np.ndarray, Any, Any]:
        index, groups = layer.index, self._row[0]
        at = np.arange(self.seen, self.seen + len(positions))
        new = np.broadcast_to(at[:, None], (len(at), groups))
        self._positions[index] = np.concatenate([self._positions[index], new])
        self._scores[index] = np.concatenate([self._scores[index], np.zeros(new.shape)])
        self._k[index] = self._xp.concat([self._k[index], k], axis=0)
        self._v[index] = self._xp.concat([self._v[index], v], axis=0)
        where = self._positions[index] if self.per_head else self._positions[index][:, 0]
        return where, self._k[index], self._v[index]

    def evict(self, layer: Any) -> None:
        index = layer.index
        positions = self._positions[index]
        if len(positions) <= self.budget:
            return
        order = np.argsort(self.priority(index, positions), axis=0, kind="stable")
        keep = np.sort(order[-self.budget :], axis=0)  # rows are by position: newer ones are last
        self._positions[index] = np.take_along_axis(positions, keep, axis=0)
        self._scores[index] = np.take_along_axis(self._scores[index], keep, axis=0)
        self._k[index] = self._gather(self._k[index], keep)
        self._v[index] = self._gather(self._v[index], keep)

    def _gather(self, rows: Any, keep: np.ndarray) -> Any:
        xp = self._xp
        heads = [xp.take(rows[:, g], xp.asarray(keep[:, g]), axis=0) for g in range(self._row[0])]
        return xp.stack(heads, axis=1)

    @property
    def stored(self) -> int:
        return len(self._positions[0])

    @property
    def nbytes(self) -> int:
        return sum(self._kv_bytes(len(positions)) for positions in self._positions)

    def _truncate(self, length: int) -> None:
        for index, positions in enumerate(self._positions):
            left = int((positions < length).sum(axis=0).min())  # every head keeps equally many
            keep = np.broadcast_to(np.arange(left)[:, None], (left, self._row[0]))
            self._positions[index] = positions[:left]
            self._scores[index] = self._scores[index][:left]
            self._k[index] = self._gather(self._k[index], keep)
            self._v[index] = self._gather(self._v[index], keep)

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {"seen": np.array([self.seen])}
        for index in range(len(self._k)):
            tensors[f"positions.{index}"] = self._positions[index]
            tensors[f"scores.{index}"] = self._scores[index]
            tensors[f"k.{index}"] = np.asarray(self._k[index])
            tensors[f"v.{index}"] = np.asarray(self._v[index])
        return tensors

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        self._open, self.seen = False, int(tensors["seen"][0])
        for index in range(len(self._k)):
            self._positions[index] = tensors[f"positions.{index}"]
            rows = len(self._positions[index])
            self._scores[index] = np.array(tensors[f"scores.{index}"])
            self._k[index] = self._checked(tensors[f"k.{index}"], (rows, *self._row))
            self._v[index] = self._checked(tensors[f"v.{index}"], (rows, *self._row))

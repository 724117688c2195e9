"""What the eviction baselines share. None of them is lossless below the full budget (T9)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..arrays import to_numpy
from ..errors import CacheError
from .base import Attended, Cache, whole


class Evicting(Cache):
    """Keep at most `budget` tokens' K/V at each layer and head; the rest is gone for good.

    The call's tokens attend to what is stored and to themselves; then the layer drops rows until
    `budget` are left. A token fed alone so attends to `budget` tokens and itself. A policy says
    what goes by writing `priority`.

    `truncate` brings nothing back and undoes no score; heads that keep different tokens then keep
    as many as the one that has the fewest left. If a call is interrupted, rows may be lost: until
    `reset`, the cache raises `CacheError`.

    Raises
    ------
    CacheError
        If `budget` is below 1 or larger than the model's context.
    """

    per_head: ClassVar[bool] = False  # whether heads keep different tokens

    def __init__(self, weights: Any, budget: int, parameters: dict[str, Any] | None = None) -> None:
        self.budget, context = whole("budget", budget), weights.config.max_position_embeddings
        if self.budget > context:
            raise CacheError(
                f"budget is {budget}, expected at most the context of {context} tokens "
                "(max_position_embeddings)"
            )
        super().__init__(weights, {"budget": self.budget} | (parameters or {}))

    def reset(self) -> None:
        self.seen, self._open = 0, False
        layers, groups = range(len(self.weights.layers)), self._row[0]
        self._positions: list[Any] = [np.empty((0, groups), dtype=np.int64) for _ in layers]
        self._scores: list[Any] = [np.empty((0, groups)) for _ in layers]
        self._k = [self._empty(0, *self._row) for _ in layers]
        self._v = [self._empty(0, *self._row) for _ in layers]

    def priority(self, layer: int, positions: np.ndarray) -> np.ndarray:
        """``(S, G)`` positions -> ``(S, G)`` priorities; the highest stay, newer ones on a tie."""
        raise NotImplementedError

    def begin(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._check_intact()
        return super().begin(ids)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._open = False

    def _arrays(self) -> dict[str, list[Any]]:
        return {"positions": self._positions, "scores": self._scores, "k": self._k, "v": self._v}

    def _check_intact(self) -> None:
        if self._open:
            raise CacheError(
                f"a call on this {self.policy} cache was interrupted and may have dropped rows; "
                "call reset() and feed the text again"
            )

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        self._open = True  # until `advance`
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
        for rows in (self._positions, self._scores):
            rows[index] = np.take_along_axis(rows[index], keep, axis=0)
        where = self._xp.asarray(keep[:, :, None])
        for rows in (self._k, self._v):
            rows[index] = self._xp.take_along_axis(rows[index], where, axis=0)

    @property
    def stored(self) -> int:
        return len(self._positions[0])

    @property
    def nbytes(self) -> int:
        return sum(self._kv_bytes(len(positions)) for positions in self._positions)

    def _truncate(self, length: int) -> None:
        self._check_intact()
        for index, positions in enumerate(self._positions):
            left = int((positions < length).sum(axis=0).min())
            for rows in self._arrays().values():
                rows[index] = rows[index][:left, ...]

    def _tensors(self) -> dict[str, np.ndarray]:
        self._check_intact()
        return {
            f"{name}.{index}": to_numpy(rows)
            for name, layers in self._arrays().items()
            for index, rows in enumerate(layers)
        }

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        for index in range(len(self._k)):
            at, groups = tensors[f"positions.{index}"], self._row[0]
            self._positions[index] = self._checked(at, len(at), groups, dtype="int64")
            scores = tensors[f"scores.{index}"]
            self._scores[index] = self._checked(scores, len(at), groups, dtype="float64")
            for name, rows in (("k", self._k), ("v", self._v)):
                given = self._checked(tensors[f"{name}.{index}"], len(at), *self._row)
                rows[index] = self._xp.asarray(given)

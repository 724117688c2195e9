"""Any schedule of what is kept: what theorem T4 quantifies over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import CacheError
from ..projection import kv_from_residual
from .base import Attended, Cache

Schedule = Callable[[int, int, int], str]


class Scheduled(Cache):
    """After each step, keep of every layer and position what a schedule says.

    Parameters
    ----------
    weights : Weights
    schedule : callable
        ``schedule(step, layer, position)`` returns ``"kv"``, ``"residual"`` or ``"both"``; `step`
        counts calls. Where K/V are wanted again they are recomputed from the residual; where a
        residual is wanted after it was dropped, K/V stay, since nothing gives it back.

    Notes
    -----
    What is dropped is overwritten with NaN, so that reading it by mistake cannot go unnoticed.
    """

    policy = "scheduled"

    def __init__(self, weights: Any, schedule: Schedule) -> None:
        self.schedule = schedule
        super().__init__(weights)

    def reset(self) -> None:
        self.seen = self._step = 0
        width = self.weights.config.hidden_size
        self._slots = [
            [self._empty(0, *self._row), self._empty(0, *self._row), self._empty(0, width)]
            for _ in self.weights.layers
        ]
        self._has_kv = [np.empty(0, dtype=bool) for _ in self._slots]
        self._has_residual = [np.empty(0, dtype=bool) for _ in self._slots]

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        index, concat = layer.index, self._xp.concat
        self._slots[index] = slot = [
            concat([kept[: self.seen, ...], rows], axis=0)
            for kept, rows in zip(self._slots[index], (k, v, residual), strict=True)
        ]
        for has in (self._has_kv, self._has_residual):
            has[index] = np.append(has[index][: self.seen], np.ones(len(positions), dtype=bool))
        all_k, all_v = self._xp.asarray(slot[0], copy=True), self._xp.asarray(slot[1], copy=True)
        for at in np.flatnonzero(~self._has_kv[index]).tolist():
            all_k[at : at + 1, ...], all_v[at : at + 1, ...] = self._recomputed(layer, at)
        return np.arange(len(self._has_kv[index])), all_k, all_v

    def evict(self, layer: Any) -> None:
        k, v, residual = self._slots[layer.index]
        has_kv, has_residual = self._has_kv[layer.index], self._has_residual[layer.index]
        for at in range(len(has_kv)):
            wanted = self.schedule(self._step, layer.index, at)
            if wanted not in ("kv", "residual", "both"):
                raise CacheError(f"the schedule says {wanted!r}, expected kv, residual or both")
            if wanted in ("kv", "both") and not has_kv[at]:
                k[at : at + 1, ...], v[at : at + 1, ...] = self._recomputed(layer, at)
                has_kv[at] = True
            if wanted == "kv" and has_residual[at]:
                has_residual[at], residual[at, ...] = False, np.nan
            if wanted == "residual" and has_kv[at] and has_residual[at]:
                has_kv[at], k[at, ...], v[at, ...] = False, np.nan, np.nan

    def _recomputed(self, layer: Any, at: int) -> tuple[Any, Any]:
        rows = self._slots[layer.index][2][at : at + 1, ...]
        return kv_from_residual(rows, np.array([at]), layer)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._step += 1

    @property
    def stored(self) -> int:
        return int(self._has_kv[0][: self.seen].sum())

    @property
    def nbytes(self) -> int:
        kv = sum(int(has[: self.seen].sum()) for has in self._has_kv)
        residuals = sum(int(has[: self.seen].sum()) for has in self._has_residual)
        return self._kv_bytes(kv) + residuals * self.weights.config.hidden_size * self._itemsize

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {"step": np.array([self._step])}
        for index, slot in enumerate(self._slots):
            for name, array in zip(("k", "v", "residual"), slot, strict=True):
                tensors[f"{name}.{index}"] = to_numpy(array[: self.seen, ...])
            tensors[f"has_kv.{index}"] = self._has_kv[index][: self.seen]
            tensors[f"has_residual.{index}"] = self._has_residual[index][: self.seen]
        return tensors

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        self._step = int(self._checked(tensors["step"], 1, dtype="int64")[0])
        shapes = (self._row, self._row, (self.weights.config.hidden_size,))
        for index in range(len(self._slots)):
            self._slots[index] = [
                self._xp.asarray(self._checked(tensors[f"{name}.{index}"], self.seen, *shape))
                for name, shape in zip(("k", "v", "residual"), shapes, strict=True)
            ]
            for name, has in (("has_kv", self._has_kv), ("has_residual", self._has_residual)):
                has[index] = self._checked(tensors[f"{name}.{index}"], self.seen, dtype="bool")

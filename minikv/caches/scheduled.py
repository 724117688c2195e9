"""Any schedule of what is kept: what theorem T4 quantifies over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Keys, NewKeys, NewValues, Positions, Stream, Values, to_numpy
from ..errors import CacheError
from ..layers import Layer
from ..memory import Attended
from ..projection import kv_from_residual
from .base import Cache
from .saving import expect

Schedule = Callable[[int, int, int], str]
"""``schedule(step, layer, position)`` is what to keep: ``"kv"``, ``"residual"`` or ``"both"``."""


def in_turns(step: int, layer: int, position: int) -> str:
    """A schedule that keeps K and V, the residual, or both, by turns."""
    return ("kv", "residual", "both")[(7 * step + 3 * layer + position) % 3]


class Slots:
    """What one layer holds of each position: K and V, the residual, or both.

    What is dropped is overwritten with NaN, so that reading it by mistake cannot go unnoticed.
    """

    def __init__(
        self, k: Keys, v: Values, residual: Stream, has_kv: np.ndarray, has_residual: np.ndarray
    ) -> None:
        self.k = k  # (S, G, d)
        self.v = v  # (S, G, d)
        self.residual = residual  # (S, D)
        self.has_kv = has_kv  # (S,) bool
        self.has_residual = has_residual  # (S,) bool

    def __len__(self) -> int:
        return len(self.has_kv)

    def drop_kv(self, position: int) -> None:
        self.has_kv[position] = False
        self.k[position, ...] = np.nan
        self.v[position, ...] = np.nan

    def drop_residual(self, position: int) -> None:
        self.has_residual[position] = False
        self.residual[position, ...] = np.nan


@dataclass(eq=False, repr=False)
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
    A schedule cannot be written to a file: whoever loads a saved cache gives the same one again.
    """

    policy = "scheduled"

    schedule: Schedule

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"schedule": in_turns}]

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def reset(self) -> None:
        self.seen = 0
        self._step = 0
        width = self.weights.config.hidden_size
        self._slots = [
            Slots(
                self._empty(0, *self._row),
                self._empty(0, *self._row),
                self._empty(0, width),
                np.empty(0, dtype=bool),
                np.empty(0, dtype=bool),
            )
            for _ in self.weights.layers
        ]

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        xp = self._xp
        old = self._slots[layer.index]
        seen = (slice(0, self.seen), ...)
        new = np.ones(len(positions), dtype=bool)
        slots = Slots(
            xp.concat([old.k[seen], k], axis=0),
            xp.concat([old.v[seen], v], axis=0),
            xp.concat([old.residual[seen], residual], axis=0),
            np.append(old.has_kv[: self.seen], new),
            np.append(old.has_residual[: self.seen], new),
        )
        self._slots[layer.index] = slots
        all_k = xp.asarray(slots.k, copy=True)
        all_v = xp.asarray(slots.v, copy=True)
        for position in np.flatnonzero(~slots.has_kv).tolist():
            row = (slice(position, position + 1), ...)
            all_k[row], all_v[row] = self._recomputed(layer, position)
        return np.arange(len(slots)), all_k, all_v

    def evict(self, layer: Layer) -> None:
        slots = self._slots[layer.index]
        for position in range(len(slots)):
            wanted = self.schedule(self._step, layer.index, position)
            if wanted not in ("kv", "residual", "both"):
                raise CacheError(f"the schedule says {wanted!r}, expected kv, residual or both")
            if wanted in ("kv", "both") and not slots.has_kv[position]:
                row = (slice(position, position + 1), ...)
                slots.k[row], slots.v[row] = self._recomputed(layer, position)
                slots.has_kv[position] = True
            if wanted == "kv" and slots.has_residual[position]:
                slots.drop_residual(position)
            if wanted == "residual" and slots.has_residual[position] and slots.has_kv[position]:
                slots.drop_kv(position)

    def _recomputed(self, layer: Layer, position: int) -> tuple[NewKeys, NewValues]:
        """K and V of one position from its residual, twice ``(1, G, d)``."""
        row = self._slots[layer.index].residual[position : position + 1, ...]
        return kv_from_residual(row, np.array([position]), layer)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._step += 1

    @property
    def stored(self) -> int:
        return int(self._slots[0].has_kv[: self.seen].sum())

    @property
    def nbytes(self) -> int:
        kv = sum(int(slots.has_kv[: self.seen].sum()) for slots in self._slots)
        residuals = sum(int(slots.has_residual[: self.seen].sum()) for slots in self._slots)
        return self._kv_bytes(kv) + self._stream_bytes(residuals)

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {"step": np.array([self._step])}
        for index, slots in enumerate(self._slots):
            for name in ("k", "v", "residual"):
                rows = getattr(slots, name)
                tensors[f"{name}.{index}"] = to_numpy(rows[: self.seen, ...])
            tensors[f"has_kv.{index}"] = slots.has_kv[: self.seen]
            tensors[f"has_residual.{index}"] = slots.has_residual[: self.seen]
        return tensors

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        self._step = int(self._checked(tensors["step"], 1, dtype="int64")[0])
        expect(self._step >= 0, f"it counts {self._step} steps")
        width = self.weights.config.hidden_size
        for index in range(len(self._slots)):
            k = self._checked(tensors[f"k.{index}"], self.seen, *self._row)
            v = self._checked(tensors[f"v.{index}"], self.seen, *self._row)
            residual = self._checked(tensors[f"residual.{index}"], self.seen, width)
            has_kv = self._checked(tensors[f"has_kv.{index}"], self.seen, dtype="bool")
            has_residual = self._checked(tensors[f"has_residual.{index}"], self.seen, dtype="bool")
            expect(bool((has_kv | has_residual).all()), "it holds nothing of a token")
            asarray = self._xp.asarray
            self._slots[index] = Slots(
                asarray(k), asarray(v), asarray(residual), has_kv, has_residual
            )

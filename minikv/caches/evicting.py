"""What the eviction baselines share. None of them is lossless below the full budget (T9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..arrays import Array, NewKeys, NewValues, Positions, Stream, TokenIds, to_numpy
from ..errors import CacheError
from ..layers import Layer
from ..memory import Attended
from ..numbers import whole
from .base import Cache
from .rows import Rows
from .saving import expect


@dataclass(eq=False, repr=False)
class Evicting(Cache):
    """Keep at most `budget` tokens' K/V at each layer and head, unless the policy `grows`.

    The call's tokens attend to what is stored and to themselves; then the layer drops rows, for
    good, until `budget` are left. A token fed alone so attends to `budget` tokens and itself. A
    policy says what goes by writing `priority`; one that needs attention weights sets `watches`
    and writes `observe`, which adds to ``self.rows[layer.index].scores``.

    `truncate` brings nothing back and undoes no score; heads that keep different tokens then keep
    as many as the one that has the fewest left. If a call is interrupted, rows may be lost: until
    `reset`, the cache raises `CacheError`.

    Attributes
    ----------
    rows : list of Rows
        What each layer holds.
    per_head : bool
        Whether heads keep different tokens.
    grows : bool
        Whether a layer may hold more: tokens fed one by one all stay, or layers share a budget.
    numbers : dict
        The arrays in ``Rows.numbers`` and the types of their elements.

    Raises
    ------
    CacheError
        If `budget` is below 1 or larger than the model's context.
    """

    per_head: ClassVar[bool] = False
    grows: ClassVar[bool] = False
    numbers: ClassVar[dict[str, type]] = {"positions": np.int64, "scores": np.float64}

    budget: int

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}]

    def check(self) -> None:
        self.budget = whole("budget", self.budget, error=CacheError)
        context = self.weights.config.max_position_embeddings
        if self.budget > context:
            raise CacheError(
                f"budget is {self.budget}, expected at most the context of {context} tokens "
                "(max_position_embeddings)"
            )

    def reset(self) -> None:
        self.seen = 0
        self._open = False  # whether a call has begun to change rows
        self.rows = [Rows(layer, self.numbers, self._empty) for layer in self.weights.layers]

    def priority(self, rows: Rows) -> Array:
        """What is worth keeping of a layer: ``(S, G)`` numbers, of which the highest stay.

        Of equals the newer stays. Infinity is a number, NaN is none.
        """
        raise NotImplementedError

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        self._check_intact()
        return super().begin(ids)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._open = False

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        self._open = True  # until `advance`
        rows = self.rows[layer.index]
        # Rows are known by their places in the text: a policy may count `positions` otherwise.
        rows.append(np.arange(self.seen, self.seen + len(positions)), k, v)
        attended = rows.positions.copy()  # for whoever keeps it beyond the next call
        if self.per_head:
            return attended, rows.keys, rows.values
        return attended[:, 0], rows.keys, rows.values

    def evict(self, layer: Layer) -> None:
        rows = self.rows[layer.index]
        surplus = len(rows) - self.budget
        if surplus <= 0:
            return
        priority = self._checked_priority(rows)
        if surplus == 1:  # as after each token that is fed alone
            lowest = priority.argmin(axis=0)  # of equals the first, which is the oldest
            self._expect_alike(lowest)
            rows.drop(lowest)
            return
        order = np.argsort(priority, axis=0, kind="stable")
        kept = np.sort(order[-self.budget :], axis=0)  # of equals the last, which are the newest
        self._expect_alike(kept)
        rows.keep(kept)

    def _expect_alike(self, chosen: np.ndarray) -> None:
        """Refuse indices of rows, ``(..., G)``, that differ from head to head where none may."""
        if not self.per_head and (chosen != chosen[..., :1]).any():
            raise CacheError(
                f"the priority of {type(self).__name__} differs from head to head, expected the "
                "same for all heads of a layer; or set per_head = True"
            )

    @property
    def stored(self) -> int:
        return len(self.rows[0])

    @property
    def nbytes(self) -> int:
        return sum(self._kv_bytes(len(rows)) for rows in self.rows)

    def _checked_priority(self, rows: Rows) -> np.ndarray:
        """What `priority` says, float64 in NumPy, or a `CacheError` that says what is wrong."""
        name = f"the priority of {type(self).__name__}"
        shape = rows.positions.shape
        given = self.priority(rows)
        try:
            priority = to_numpy(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise CacheError(f"{name} is {given!r:.60}, expected {shape} numbers") from None
        if priority.shape != shape:
            raise CacheError(
                f"{name} has shape {priority.shape}, expected {shape}: "
                "a number for each token and key/value head"
            )
        if np.isnan(priority).any():
            token, head = np.argwhere(np.isnan(priority))[0]
            raise CacheError(f"{name} is NaN for row {token} of head {head}, expected numbers")
        return priority

    def _check_intact(self) -> None:
        """Raise `CacheError` if the call before was interrupted."""
        if self._open:
            raise CacheError(
                f"a call on this {self.policy} cache was interrupted and may have dropped rows; "
                "call reset() and feed the text again"
            )

    def _truncate(self, length: int) -> None:
        self._check_intact()
        for rows in self.rows:
            left = (rows.positions < length).sum(axis=0)  # by head
            rows.cut(int(left.min()))

    def _tensors(self) -> dict[str, np.ndarray]:
        self._check_intact()
        tensors = {}
        for index, rows in enumerate(self.rows):
            for name, numbers in rows.numbers.items():
                tensors[f"{name}.{index}"] = numbers
            tensors[f"k.{index}"] = to_numpy(rows.keys)
            tensors[f"v.{index}"] = to_numpy(rows.values)
        return tensors

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        groups, head_dim = self._row
        for index, rows in enumerate(self.rows):
            count = len(np.atleast_1d(tensors[f"positions.{index}"]))
            keys = self._checked(tensors[f"k.{index}"], count, groups, head_dim)
            values = self._checked(tensors[f"v.{index}"], count, groups, head_dim)
            rows.append(np.arange(count), self._xp.asarray(keys), self._xp.asarray(values))
            for name, dtype in self.numbers.items():
                saved = tensors[f"{name}.{index}"]
                kind = np.dtype(dtype).name
                rows.numbers[name][:] = self._checked(saved, count, groups, dtype=kind)
            self._check_rows(rows)

    def _check_rows(self, rows: Rows) -> None:
        """Raise `CacheError` for saved numbers that no call can have left."""
        within_budget = self.grows or len(rows) <= self.budget
        expect(within_budget, f"it holds {len(rows)} tokens, expected {self.budget} at most")
        positions = rows.positions
        inside = (positions >= 0) & (positions < self.seen)
        expect(bool(inside.all()), f"it holds positions outside the {self.seen} tokens seen")
        ascending = np.diff(positions, axis=0) > 0
        expect(bool(ascending.all()), "its positions do not ascend")
        alike = self.per_head or bool((positions == positions[:, :1]).all())
        expect(alike, "its heads hold different tokens")
        expect(not np.isnan(rows.scores).any(), "a score is NaN")

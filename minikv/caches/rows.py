"""What one layer of an evicting cache holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..arrays import Array, Keys, NewKeys, NewValues, Positions, Values
from ..layers import Layer

FEWEST = 16  # tokens that there is room for


class Rows:
    """S tokens for each of a layer's G key/value heads, oldest first.

    K and V lie in buffers ``(G, capacity, d)``, from `_start` on and before `_end`. New rows go
    behind the newest. Where some are dropped, those older than the last dropped one move up to it:
    a window moves none. When the end is reached, all move to buffers twice as long as they need.
    What is known of each key beside itself lies in buffers ``(capacity, G)``, in the same places.

    Attributes
    ----------
    layer : Layer
    """

    def __init__(self, layer: Layer, numbers: dict[str, type], empty: Callable[..., Array]) -> None:
        groups = layer.config.num_key_value_heads
        self.layer = layer
        self._empty = empty
        self._start = 0
        self._end = 0
        self._numbers: dict[str, np.ndarray] = {
            name: np.empty((0, groups), dtype) for name, dtype in numbers.items()
        }
        self._keys = empty(groups, 0, layer.config.head_dim)
        self._values = empty(groups, 0, layer.config.head_dim)

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """What is known of each key beside itself, ``(S, G)`` arrays, to be written to.

        They are `positions`, `scores` and what the policy adds in `Evicting.numbers`. They start at
        0, and come and go with their key; the arrays are good until the next call.
        """
        return {name: self._held(name) for name in self._numbers}

    @property
    def positions(self) -> np.ndarray:
        """``(S, G)`` int: positions in the text, ascending over S."""
        return self._held("positions")

    @property
    def scores(self) -> np.ndarray:
        """``(S, G)`` float64: what `Evicting.observe` wrote down of each key, to be written to."""
        return self._held("scores")

    @property
    def keys(self) -> Keys:
        """``(S, G, d)``, of the library that computes, until the next call; a view."""
        return self._swapped(self._keys[:, self._start : self._end, :])

    @property
    def values(self) -> Values:
        """``(S, G, d)``, of the library that computes, until the next call; a view."""
        return self._swapped(self._values[:, self._start : self._end, :])

    def append(self, positions: Positions, keys: NewKeys, values: NewValues) -> None:
        """Add tokens, newest last: ``(T,)``, ``(T, G, d)``, ``(T, G, d)``."""
        count = len(positions)
        if self._end + count > self._keys.shape[1]:
            self._move(2 * (len(self) + count))
        new = slice(self._end, self._end + count)
        for numbers in self._numbers.values():
            numbers[new] = 0
        self._numbers["positions"][new] = positions[:, None]
        self._keys[:, new, :] = self._swapped(keys)
        self._values[:, new, :] = self._swapped(values)
        self._end = new.stop

    def keep(self, kept: np.ndarray) -> None:
        """Leave the rows of these indices, ``(K, G)``, ascending over K, and drop the others."""
        dropped = len(self) - len(kept)
        newest_stay = np.arange(dropped, len(self))[:, None]  # where each row comes to lie
        moved = kept[(kept != newest_stay).any(axis=1)]  # the oldest of them
        there = slice(self._start + dropped, self._start + dropped + len(moved))
        for head in range(kept.shape[1]):
            indices = moved[:, head] + self._start
            for numbers in self._numbers.values():
                numbers[there, head] = numbers[indices, head]
            xp = self.layer.arithmetic.xp
            indices = xp.asarray(indices)
            for buffer in (self._keys, self._values):
                buffer[head, there, :] = xp.take(buffer[head, :, :], indices, axis=0)
        self._shorten(dropped)

    def drop(self, index: np.ndarray) -> None:
        """Drop the row of this index of each head, ``(G,)``: of older ones each moves up by one."""
        if (index == index[0]).all():
            self._move_up(slice(None), int(index[0]))
        else:
            for head, older in enumerate(index.tolist()):
                self._move_up(slice(head, head + 1), older)
        self._shorten(1)

    def cut(self, count: int) -> None:
        """Leave the oldest `count` rows."""
        self._end = self._start + count

    def _held(self, name: str) -> np.ndarray:
        """The numbers of this name of the rows that are held, ``(S, G)``; a view."""
        return self._numbers[name][self._start : self._end]

    def _move_up(self, heads: slice, count: int) -> None:
        """Move the oldest `count` rows of some heads to where the row behind each of them was."""
        here = slice(self._start, self._start + count)
        there = slice(self._start + 1, self._start + 1 + count)
        for numbers in self._numbers.values():
            numbers[there, heads] = numbers[here, heads]
        xp = self.layer.arithmetic.xp
        for buffer in (self._keys, self._values):  # not every library copies what overlaps
            buffer[heads, there, :] = xp.asarray(buffer[heads, here, :], copy=True)

    def _shorten(self, dropped: int) -> None:
        """Let the rows begin where the oldest that stays has come to lie."""
        self._start += dropped
        if self._keys.shape[1] > 4 * max(len(self), FEWEST):  # after a long prompt
            self._move(2 * len(self))

    def _move(self, capacity: int) -> None:
        """Move all rows to the start of buffers that have room for so many."""
        capacity = max(capacity, FEWEST)
        groups, _, head_dim = self._keys.shape
        for name, old in self._numbers.items():
            numbers = np.empty((capacity, groups), old.dtype)
            numbers[: len(self)] = self._held(name)
            self._numbers[name] = numbers
        self._keys = self._moved(self._keys, self._empty(groups, capacity, head_dim))
        self._values = self._moved(self._values, self._empty(groups, capacity, head_dim))
        self._end -= self._start
        self._start = 0

    def _moved(self, old: Array, new: Array) -> Array:
        """The rows of a buffer at the start of a new one."""
        new[:, : len(self), :] = old[:, self._start : self._end, :]
        return new

    def _swapped(self, array: Array) -> Array:
        """``(G, S, d) <-> (S, G, d)``, a view."""
        return self.layer.arithmetic.xp.permute_dims(array, (1, 0, 2))

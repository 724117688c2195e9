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

    Attributes
    ----------
    layer : Layer
    numbers : dict of (S, G) NumPy arrays
        What is known of each key beside itself: `positions`, `scores` and what the policy adds
        in `Evicting.numbers`. They start at 0, and come and go with their key.
    """

    def __init__(self, layer: Layer, numbers: dict[str, type], empty: Callable[..., Array]) -> None:
        groups = layer.config.num_key_value_heads
        self.layer = layer
        self.numbers: dict[str, np.ndarray] = {
            name: np.empty((0, groups), dtype) for name, dtype in numbers.items()
        }
        self._empty = empty
        self._start = 0
        self._end = 0
        self._keys = empty(groups, 0, layer.config.head_dim)
        self._values = empty(groups, 0, layer.config.head_dim)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def positions(self) -> np.ndarray:
        """``(S, G)`` int: positions in the text, ascending over S."""
        return self.numbers["positions"]

    @property
    def scores(self) -> np.ndarray:
        """``(S, G)`` float64: what `Evicting.observe` wrote down of each key, to be written to."""
        return self.numbers["scores"]

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
        for name, old in self.numbers.items():
            new = np.zeros((count, old.shape[1]), dtype=old.dtype)
            self.numbers[name] = np.concatenate([old, new])
        self.positions[len(self) - count :] = positions[:, None]
        if self._end + count > self._keys.shape[1]:
            self._move(2 * len(self))
        end = self._end + count
        self._keys[:, self._end : end, :] = self._swapped(keys)
        self._values[:, self._end : end, :] = self._swapped(values)
        self._end = end

    def keep(self, kept: np.ndarray) -> None:
        """Leave the rows of these indices, ``(K, G)``, ascending over K, and drop the others."""
        dropped = len(self) - len(kept)
        newest_stay = np.arange(dropped, len(self))[:, None]  # where each row comes to lie
        moved = kept[(kept != newest_stay).any(axis=1)]  # the oldest of them
        for name, old in self.numbers.items():
            self.numbers[name] = np.take_along_axis(old, kept, axis=0)
        xp = self.layer.arithmetic.xp
        there = slice(self._start + dropped, self._start + dropped + len(moved))
        for head in range(kept.shape[1]):
            indices = xp.asarray(moved[:, head] + self._start)
            for buffer in (self._keys, self._values):
                buffer[head, there, :] = xp.take(buffer[head, :, :], indices, axis=0)
        self._start += dropped
        if self._keys.shape[1] > 4 * max(len(kept), FEWEST):  # after a long prompt
            self._move(2 * len(kept))

    def cut(self, count: int) -> None:
        """Leave the oldest `count` rows."""
        for name, old in self.numbers.items():
            self.numbers[name] = old[:count]
        self._end = self._start + count

    def _move(self, capacity: int) -> None:
        """Move all rows to the start of buffers that have room for so many."""
        self._keys = self._moved(self._keys, capacity)
        self._values = self._moved(self._values, capacity)
        self._end -= self._start
        self._start = 0

    def _moved(self, buffer: Array, capacity: int) -> Array:
        """The rows of a buffer at the start of a new one."""
        held = self._end - self._start
        new = self._empty(buffer.shape[0], max(capacity, FEWEST), buffer.shape[2])
        new[:, :held, :] = buffer[:, self._start : self._end, :]
        return new

    def _swapped(self, array: Array) -> Array:
        """``(G, S, d) <-> (S, G, d)``, a view."""
        return self.layer.arithmetic.xp.permute_dims(array, (1, 0, 2))

"""K and V of the newest tokens."""

from __future__ import annotations

from collections.abc import Iterator

from ...arrays import Keys, NewKeys, NewValues, Values

Piece = tuple[slice, NewKeys, NewValues]
"""Positions, and their K and V."""


class Ring:
    """K and V of the newest tokens at one layer, in arrays that never grow.

    Position p lies in row ``p % capacity``, over position ``p - capacity``, which is older.

    Parameters
    ----------
    k, v : (capacity, G, d)
        The arrays to use.
    """

    def __init__(self, k: Keys, v: Values) -> None:
        self.capacity: int = k.shape[0]
        self._k = k
        self._v = v

    def write(self, start: int, k: NewKeys, v: NewValues) -> None:
        """Take the rows of the tokens from position `start` on, `capacity` of them at most."""
        for positions, rows in self._pieces(start, start + k.shape[0]):
            given = (slice(positions.start - start, positions.stop - start), ...)
            self._k[rows, ...] = k[given]
            self._v[rows, ...] = v[given]

    def read(self, start: int, stop: int) -> Iterator[Piece]:
        """K and V of positions ``start..stop``, as views; in two pieces where the ring wraps."""
        for positions, rows in self._pieces(start, stop):
            yield positions, self._k[rows, ...], self._v[rows, ...]

    def from_the_start(self, stop: int) -> tuple[Keys, Values]:
        """K and V of positions ``0..stop`` as views, while nothing has been overwritten."""
        return self._k[:stop, ...], self._v[:stop, ...]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Positions ``start..stop`` and their rows, cut where the ring wraps."""
        while start < stop:
            row = start % self.capacity
            end = min(stop, start + self.capacity - row)  # which lies in row 0 of the next turn
            yield slice(start, end), slice(row, row + end - start)
            start = end

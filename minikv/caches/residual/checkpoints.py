"""Residual checkpoints: which layers keep them, and how their rows are kept."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import numpy as np

from ...arrays import Array, to_numpy
from ...errors import CacheError
from ...numbers import is_whole, whole


class Checkpoint:
    """One row for each token: the input residual of one layer, or the token's id.

    Rows are appended in chunks of one size, so that growing never copies what is there.

    Parameters
    ----------
    xp : module
        Array namespace.
    empty : (0, ...)
        No rows, in the shape and dtype of those that will be appended.
    chunk : int
        Rows in a chunk.

    Attributes
    ----------
    first : int
        Rows before it are forgotten; it is where a chunk begins.
    length : int
        Rows appended, those forgotten included.
    """

    def __init__(self, xp: ModuleType, empty: Array, chunk: int) -> None:
        self._xp = xp
        self._empty = empty
        self._chunk = chunk
        self._chunks: list[Array] = []
        self.first = 0
        self.length = 0

    def append(self, rows: Array) -> None:
        """Add the rows of the next tokens."""
        taken = 0
        while taken < rows.shape[0]:
            filled = self.length % self._chunk
            if filled == 0:
                shape = (self._chunk, *self._empty.shape[1:])
                self._chunks.append(self._xp.empty(shape, dtype=self._empty.dtype))
            fit = min(self._chunk - filled, rows.shape[0] - taken)
            self._chunks[-1][filled : filled + fit, ...] = rows[taken : taken + fit, ...]
            self.length += fit
            taken += fit

    def chunk(self, start: int) -> Array:
        """The chunk that begins with row `start`; its last rows may not have been written yet."""
        return self._chunks[(start - self.first) // self._chunk]

    def truncate(self, length: int) -> None:
        """Drop row `length` and all behind it."""
        self.length = min(self.length, length)
        held = self.length - self.first
        needed = -(-held // self._chunk)  # rounded up
        del self._chunks[needed:]

    def forget(self, before: int) -> None:
        """Drop the chunks that lie before a row."""
        dropped = max(0, before - self.first) // self._chunk
        del self._chunks[:dropped]
        self.first += dropped * self._chunk

    def joined(self, length: int) -> np.ndarray:
        """The rows that are left before row `length`, in NumPy."""
        parts = [to_numpy(part) for part in (self._empty, *self._chunks)]
        return np.concatenate(parts)[: length - self.first]

    def restore(self, first: int, rows: Array) -> None:
        """Take over rows that `joined` gave; those before `first` are forgotten."""
        self.first = first
        self.length = first
        self.append(rows)


def checkpoint_layers(checkpoints: str | int | Iterable[int], layers: int) -> tuple[int, ...]:
    """The layers that `Residual`'s parameter names, ascending.

    Examples
    --------
    >>> checkpoint_layers(4, 10)
    (0, 4, 8)
    """
    if isinstance(checkpoints, str):
        named = {"embedding": 1, "tokens": 1, "every": layers}
        if checkpoints not in named:
            raise CacheError(
                f"checkpoints is {checkpoints!r}, expected 'embedding', 'tokens', "
                "'every', a number k (every k-th layer) or layers"
            )
        return tuple(range(named[checkpoints]))
    if is_whole(checkpoints) or isinstance(checkpoints, bool):
        step = whole("checkpoints", checkpoints, error=CacheError)
        return tuple(range(0, layers, step))
    try:
        given = list(checkpoints)  # type: ignore[arg-type]  # numbers have been dealt with
    except TypeError:
        raise CacheError(f"checkpoints is {checkpoints!r}, expected a set of layers") from None
    kept = sorted({whole("a checkpoint layer", layer, 0, error=CacheError) for layer in given})
    if 0 not in kept:
        raise CacheError(f"checkpoint layers {kept} lack layer 0, where recomputing starts; add 0")
    if kept[-1] >= layers:
        raise CacheError(f"checkpoint layer {kept[-1]} does not exist: the model has {layers}")
    return tuple(kept)

"""Room for weights: large blocks of memory, of which each matrix gets a part."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from threading import Thread

import numpy as np
from numpy.typing import DTypeLike

BLOCK_BYTES = 32 << 20
ALIGNED_BYTES = 64  # a line of the processor's cache
PAGE_BYTES = 4096  # or a part of one, where pages are larger
MOST_THREADS = 8
AHEAD_BYTES = 16 << 20  # that are touched before they are asked for


def touch(piece: np.ndarray) -> None:
    """Write something to each page of new memory, on several processors.

    The system hands out memory page by page when it is first written to. In a virtual machine that
    can take longer than making the weights which are to lie there. Where no thread can be started,
    as in a browser, nothing is written.
    """
    parts = np.array_split(piece[::PAGE_BYTES], min(MOST_THREADS, os.cpu_count() or 1))
    started = []
    with suppress(RuntimeError):
        for part in parts:
            thread = Thread(target=part.fill, args=(0,))
            thread.start()
            started.append(thread)
    for thread in started:
        thread.join()


def is_mapped(matrix: np.ndarray) -> bool:
    """Whether nobody can write to it, and its memory is not NumPy's: it lies in a mapped file."""
    made_by_numpy = matrix.base is None or isinstance(matrix.base, np.ndarray)
    return not matrix.flags.writeable and not made_by_numpy


class Room:
    """Arrays that lie one after the other in large blocks.

    On Linux NumPy asks for huge pages where an array has 4 MiB or more. In float32 SmolLM2-135M's
    matrices are smaller, but for the embedding: huge pages are asked for a block of them.
    """

    def __init__(self) -> None:
        self._block = np.empty(0, dtype=np.uint8)
        self._used = 0
        self._touched = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array of this shape, its numbers not set."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        start = -(-self._used // ALIGNED_BYTES) * ALIGNED_BYTES
        if start + size > len(self._block):
            is_first = len(self._block) == 0  # of a small model, which uses little of it
            self._block = np.empty(max(size, BLOCK_BYTES), dtype=np.uint8)
            self._touched = len(self._block) if is_first else 0
            start = 0
        self._used = start + size
        if self._used > self._touched:
            ahead = slice(self._touched, self._used + AHEAD_BYTES)
            touch(self._block[ahead])
            self._touched = ahead.stop
        return self._block[start : start + size].view(dtype).reshape(shape)

"""Room for weights: large blocks of memory, of which each matrix gets a part."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

BLOCK_BYTES = 32 << 20
ALIGNED_BYTES = 64  # a line of the processor's cache


class Room:
    """Arrays that lie one after the other in large blocks.

    On Linux NumPy asks for huge pages where an array has 4 MiB or more. In float32 SmolLM2-135M's
    matrices are smaller, but for the embedding: huge pages are asked for a block of them.
    """

    def __init__(self) -> None:
        self._block = np.empty(0, dtype=np.uint8)
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array of this shape, its numbers not set."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        start = -(-self._used // ALIGNED_BYTES) * ALIGNED_BYTES
        if start + size > len(self._block):
            self._block = np.empty(max(size, BLOCK_BYTES), dtype=np.uint8)
            start = 0
        self._used = start + size
        return self._block[start : start + size].view(dtype).reshape(shape)

"""`Float32` on NumPy: the same sums, of weights that lie close together."""

from __future__ import annotations

import numpy as np

from .base import Matrix
from .float32 import Float32
from .room import Room


class NumpyFloat32(Float32):
    """`Float32` whose matrices lie in large blocks of memory; see `Room`."""

    def __init__(self) -> None:
        super().__init__(np)
        self._room = Room()

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        if tied:  # the embedding too, which is held once
            return super().weight(matrix, name, tied)
        kept = self._room.empty(matrix.shape, np.float32)
        kept[:] = matrix
        return kept

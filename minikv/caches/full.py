"""The ordinary KV cache: every key and value of every token."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Attended, Cache

_FIRST_CAPACITY = 16  # tokens


class Full(Cache):
    """Keep every token's K and V at every layer, in the model's dtype.

    Buffers are ``(capacity, G, d)`` for each layer and double when full, so that appending one
    token at a time costs amortised constant time. Bytes: ``seen * L * 2 * G * d * itemsize``.
    """

    policy = "full"

    def reset(self) -> None:
        self.seen = 0
        self._k = [self._empty(0, *self._row) for _ in self.weights.layers]
        self._v = [self._empty(0, *self._row) for _ in self.weights.layers]

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        end = self.seen + k.shape[0]
        out = []
        for buffers, rows in ((self._k, k), (self._v, v)):
            buffer = buffers[layer.index]
            if end > buffer.shape[0]:
                grown = self._empty(max(_FIRST_CAPACITY, 1 << (end - 1).bit_length()), *self._row)
                grown[: self.seen] = buffer[: self.seen]
                buffer = buffers[layer.index] = grown
            buffer[self.seen : end] = rows
            out.append(buffer[:end])
        return np.arange(end), out[0], out[1]

    @property
    def nbytes(self) -> int:
        return self._kv_bytes(self.seen) * len(self._k)

    def _tensors(self) -> dict[str, np.ndarray]:
        return {
            f"{name}.{index}": np.asarray(buffer[: self.seen])
            for name, buffers in (("k", self._k), ("v", self._v))
            for index, buffer in enumerate(buffers)
        }

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        for name, buffers in (("k", self._k), ("v", self._v)):
            for index in range(len(buffers)):
                given = self._checked(tensors[f"{name}.{index}"], self.seen, *self._row)
                buffers[index] = self._xp.asarray(given)

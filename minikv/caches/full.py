"""The ordinary KV cache: every key and value of every token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array, Keys, NewKeys, NewValues, Positions, Stream, to_numpy
from ..layers import Layer
from ..memory import Attended
from .base import Cache
from .registry import register

FIRST_CAPACITY = 16  # tokens


@register
@dataclass(eq=False, repr=False)
class Full(Cache):
    """Keep every token's K and V at every layer, in the model's dtype.

    Buffers are ``(G, capacity, d)`` for each layer, so that what one head reads lies together, and
    double when full, so that appending one token at a time costs amortised constant time. Bytes:
    ``seen * L * 2 * G * d * itemsize``.
    """

    policy = "full"

    def reset(self) -> None:
        self.seen = 0
        groups, head_dim = self._row
        self._k = [self._empty(groups, 0, head_dim) for _ in self.weights.layers]
        self._v = [self._empty(groups, 0, head_dim) for _ in self.weights.layers]

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        keys = self._appended(self._k, layer, k)
        values = self._appended(self._v, layer, v)
        return np.arange(self.seen + k.shape[0]), keys, values

    def _appended(self, buffers: list[Array], layer: Layer, rows: NewKeys) -> Keys:
        """All rows of a layer's buffer with these behind those of the tokens seen; a view.

        What lies behind the tokens seen is of an interrupted or truncated call, and overwritten.
        """
        buffer = buffers[layer.index]
        end = self.seen + rows.shape[0]
        if end > buffer.shape[1]:
            capacity = max(FIRST_CAPACITY, 1 << (end - 1).bit_length())
            grown = self._empty(buffer.shape[0], capacity, buffer.shape[2])
            grown[:, : self.seen, :] = buffer[:, : self.seen, :]
            buffers[layer.index] = grown
            buffer = grown
        buffer[:, self.seen : end, :] = self._swapped(rows)
        return self._swapped(buffer[:, :end, :])

    @property
    def nbytes(self) -> int:
        return self._kv_bytes(self.seen) * len(self._k)

    def _tensors(self) -> dict[str, np.ndarray]:
        return {
            f"{name}.{index}": to_numpy(self._swapped(buffer[:, : self.seen, :]))
            for name, buffers in (("k", self._k), ("v", self._v))
            for index, buffer in enumerate(buffers)
        }

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        for name, buffers in (("k", self._k), ("v", self._v)):
            for index in range(len(buffers)):
                given = self._checked(tensors[f"{name}.{index}"], self.seen, *self._row)
                buffers[index] = self._xp.asarray(np.ascontiguousarray(given.swapaxes(0, 1)))

    def _swapped(self, array: Array) -> Array:
        """``(G, S, d) <-> (S, G, d)``, a view."""
        return self._xp.permute_dims(array, (1, 0, 2))

"""The ordinary KV cache: every key and value of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..layers import Layer

_FIRST_CAPACITY = 64  # tokens


class Full:
    """Keep every token's K and V at every layer, in the model's dtype.

    Buffers are ``(capacity, G, d)`` for each layer and double when full, so that appending one
    token at a time costs amortised constant time.
    """

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        config, arithmetic = layers[0].config, layers[0].arithmetic
        self._xp, self._dtype = arithmetic.xp, arithmetic.dtype
        self._row = (config.num_key_value_heads, config.head_dim)
        self._count = len(layers)
        self.reset()

    def reset(self) -> None:
        self.seen = 0
        self._k: list[Any] = [self._allocate(0) for _ in range(self._count)]
        self._v: list[Any] = [self._allocate(0) for _ in range(self._count)]

    def update(
        self, layer: Layer, positions: np.ndarray, residual: Any, k: Any, v: Any
    ) -> tuple[np.ndarray, Any, Any]:
        end = self.seen + k.shape[0]
        out = []
        for buffers, rows in ((self._k, k), (self._v, v)):
            buffer = buffers[layer.index]
            if end > buffer.shape[0]:
                buffer = buffers[layer.index] = self._grown(buffer, end)
            buffer[self.seen : end] = rows
            out.append(buffer[:end])
        return np.arange(end), out[0], out[1]

    def advance(self, tokens: int) -> None:
        self.seen += tokens

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in (*self._k, *self._v))

    def _allocate(self, capacity: int) -> Any:
        return self._xp.empty((capacity, *self._row), dtype=self._dtype)

    def _grown(self, buffer: Any, needed: int) -> Any:
        grown = self._allocate(max(_FIRST_CAPACITY, 1 << (needed - 1).bit_length()))
        grown[: self.seen] = buffer[: self.seen]
        return grown

"""Memories that stand between the decoder and a cache: to look on, or to break it on purpose."""

from __future__ import annotations

import numpy as np

from ..arrays import NewKeys, NewValues, Pattern, Positions, Stream, TokenIds
from ..caches import Cache
from ..decoder import Weights
from ..layers import Layer
from ..memory import Attended


class Wrapped:
    """A `Memory` that hands every call on to a cache; subclasses do one thing differently."""

    def __init__(self, inner: Cache) -> None:
        self.inner = inner

    @property
    def weights(self) -> Weights:
        """Of the model that it serves."""
        return self.inner.weights

    @property
    def watches(self) -> bool:
        """Whether `observe` wants the attention weights."""
        return self.inner.watches

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """Tokens to run for these new ones, and their positions."""
        return self.inner.begin(ids)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """Take the rows of new tokens at one layer; what these tokens attend to."""
        return self.inner.update(layer, positions, residual, k, v)

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """See the ``(H, T, S)`` attention weights of the queries at `positions`."""
        self.inner.observe(layer, positions, pattern)

    def evict(self, layer: Layer) -> None:
        """Attention at this layer is done."""
        self.inner.evict(layer)

    def advance(self, tokens: int) -> None:
        """Make the call's new tokens part of the sequence."""
        self.inner.advance(tokens)


class Watching(Wrapped):
    """Notes at which positions the last call attended, layer by layer."""

    def __init__(self, inner: Cache) -> None:
        super().__init__(inner)
        self.attended: dict[int, np.ndarray] = {}  # (S,), or (S, G) where heads differ

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        found = super().update(layer, positions, residual, k, v)
        self.attended[layer.index] = found[0]
        return found

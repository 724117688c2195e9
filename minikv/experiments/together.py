"""One pass over a prompt that fills many caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from ..arrays import NewKeys, NewValues, Pattern, Positions, Stream, TokenIds, to_numpy
from ..decoder import Weights, forward
from ..errors import InputError
from ..layers import Layer
from ..memory import Attended, Memory, Told
from ..progress import Progress, silent


class Watched(Memory, Protocol):
    """What the experiments ask of a cache beside the calls of the decoder; every cache has it."""

    @property
    def weights(self) -> Weights:
        """Of the model."""

    @property
    def seen(self) -> int:
        """Tokens of the sequence."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is held."""

    def fork(self) -> Self:
        """An independent copy."""


class Together:
    """A `Memory` that is several empty caches, so that one pass over a prompt fills all of them.

    Every policy sees the tokens of its first call whole and evicts after it, so each cache ends up
    as if it had been given the prompt alone: under Exact bit for bit. One that rounds what it
    stores does not, since alone it would read its own numbers.

    Parameters
    ----------
    caches : sequence of Cache
        Of one model.
    """

    def __init__(self, caches: Sequence[Watched]) -> None:
        self.weights = caches[0].weights
        self.caches = caches
        self.watching = [cache for cache in caches if cache.watches]
        self.watches = bool(self.watching)

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """Begin in all caches; the first call is all of the text, so nothing comes before it."""
        for cache in self.caches:
            cache.begin(ids)
        return ids, np.arange(len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """Store in all caches; attention reads the new keys and values alone."""
        for cache in self.caches:
            cache.update(layer, positions, residual, k, v)
        return positions, k, v

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """Show the weights to the caches that watch."""
        for cache in self.watching:
            cache.observe(layer, positions, pattern)

    def evict(self, layer: Layer) -> None:
        """Let all caches evict."""
        for cache in self.caches:
            cache.evict(layer)

    def advance(self, tokens: int) -> None:
        """End the call in all caches."""
        for cache in self.caches:
            cache.advance(tokens)


def fill(
    weights: Weights,
    caches: Sequence[Watched],
    ids: Sequence[int] | np.ndarray,
    progress: Progress = silent,
) -> np.ndarray:
    """Put one prompt into empty caches by one pass; returns the last token's logits, ``(V,)``.

    `progress` is told how many layers have been reached, which changes no bit.
    """
    if any(cache.seen for cache in caches):
        raise InputError("a cache has seen tokens, expected empty ones to share one pass")
    return to_numpy(forward(weights, [ids], [Told(Together(caches), progress)]))[0]

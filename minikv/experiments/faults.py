"""Mistakes of cache code that are easily made, for experiments that look for one in figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ..arrays import NewKeys, NewValues, Pattern, Positions, Stream, TokenIds
from ..caches import Evicting
from ..decoder import Weights
from ..layers import Layer
from ..memory import Attended


@dataclass(eq=False)
class AtKeptRows:
    """A policy whose new tokens get the number of kept rows for a position; a `Memory`.

    It is what comes out where a position is read off a cache's length, after rows were dropped: the
    keys that are kept were turned to their places in the text, and a new query and key are turned
    to a place in the middle of them. Nothing is hidden from the query, as where a step of one token
    runs without a mask.

    Parameters
    ----------
    cache : Evicting
        The policy, empty.
    """

    cache: Evicting

    @property
    def weights(self) -> Weights:
        """Of the model."""
        return self.cache.weights

    @property
    def watches(self) -> bool:
        """Whether the policy wants attention weights."""
        return self.cache.watches

    @property
    def seen(self) -> int:
        """Tokens of the sequence."""
        return self.cache.seen

    @property
    def nbytes(self) -> int:
        """Bytes that the policy holds."""
        return self.cache.nbytes

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """The mistake: positions count from what is stored, not from what was seen."""
        ids, _ = self.cache.begin(ids)
        return ids, self.cache.stored + np.arange(len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """What the policy holds; keys are numbered by rows, so that all are before the query."""
        _, keys, values = self.cache.update(layer, positions, residual, k, v)
        return np.arange(keys.shape[0]), keys, values

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """Show the policy the weights."""
        self.cache.observe(layer, positions, pattern)

    def evict(self, layer: Layer) -> None:
        """Let the policy evict."""
        self.cache.evict(layer)

    def advance(self, tokens: int) -> None:
        """End the call."""
        self.cache.advance(tokens)

    def fork(self) -> Self:
        """An independent copy."""
        return replace(self, cache=self.cache.fork())

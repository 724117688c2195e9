"""What a decoder asks of the memory of one sequence: five calls, which every cache answers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .arrays import Keys, NewKeys, NewValues, Pattern, Positions, Stream, TokenIds, Values
from .layers import Layer
from .progress import Progress

Attended = tuple[np.ndarray, Keys, Values]
"""Positions, keys and values that tokens attend to, their own included.

``(S,)`` ascending, or ``(S, G)`` where each head keeps tokens of its own, and twice ``(S, G, d)``.
"""


class Memory(Protocol):
    """One sequence's memory, between the calls of the decoder and within one.

    A call goes through ``begin``, then for each layer ``update``, ``observe`` (once for each run of
    queries that attention takes together, where ``watches``) and ``evict``, then ``advance``. Only
    ``advance`` makes the call's tokens part of the sequence.

    `minikv.decoder.forward` wants one more thing, to see that a memory is of its model: the
    attribute ``weights``. `minikv.decoder.block` alone does without.
    """

    @property
    def watches(self) -> bool:
        """Whether `observe` wants the attention weights."""

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """Tokens to run for these new ones, and their positions."""

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """Take the rows of a call's tokens at one layer, and say what they attend to.

        `residual` is the stream before the layer, ``(T, D)``; `k` and `v` are made from it,
        ``(T, G, d)``.
        """

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """See the ``(H, T, S)`` attention weights of the queries at `positions`."""

    def evict(self, layer: Layer) -> None:
        """Attention at this layer is done; drop what is to be dropped."""

    def advance(self, tokens: int) -> None:
        """Make the call's new tokens part of the sequence."""


class Told:
    """A memory that tells how far a call of the decoder is, layer by layer.

    It hands every call on as it comes, so that no bit changes.

    Parameters
    ----------
    memory : Memory
    progress : callable
        Called at each layer, with how many are done and how many there are.
    """

    def __init__(self, memory: Memory, progress: Progress) -> None:
        self.memory = memory
        self.progress = progress
        self.weights = getattr(memory, "weights", None)

    @property
    def watches(self) -> bool:
        """As the memory."""
        return self.memory.watches

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """As the memory."""
        return self.memory.begin(ids)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """As the memory, and tell."""
        self.progress("", layer.index, layer.config.num_hidden_layers)
        return self.memory.update(layer, positions, residual, k, v)

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """As the memory."""
        self.memory.observe(layer, positions, pattern)

    def evict(self, layer: Layer) -> None:
        """As the memory."""
        self.memory.evict(layer)

    def advance(self, tokens: int) -> None:
        """As the memory."""
        self.memory.advance(tokens)

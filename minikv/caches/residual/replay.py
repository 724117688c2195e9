"""K and V of evicted tokens, made again from checkpoints."""

from __future__ import annotations

import numpy as np

from ...arrays import Keys, NewKeys, NewValues, Pattern, Positions, Stream, TokenIds, Values
from ...decoder import Span, Weights, block, embed
from ...layers import Layer
from ...memory import Attended
from ...projection import kv_from_residual
from .checkpoints import Checkpoint


class Prefix:
    """The memory of a replayed chunk: it writes the chunk's K and V behind those of earlier rows.

    The chunk's tokens so attend to all tokens before them, as they did when they were new. It is
    given to `minikv.decoder.block` alone, which calls nothing but `update` and `evict`.

    Parameters
    ----------
    k, v : (S, G, d)
        Of the whole text at the layer that is replayed, filled up to the chunk.
    """

    watches = False

    def __init__(self, k: Keys, v: Values) -> None:
        self._k = k
        self._v = v

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        return ids, np.arange(len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        start = int(positions[0])
        stop = int(positions[-1]) + 1
        self._k[start:stop, ...] = k
        self._v[start:stop, ...] = v
        return np.arange(stop), self._k[:stop, ...], self._v[:stop, ...]

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        pass

    def evict(self, layer: Layer) -> None:
        pass

    def advance(self, tokens: int) -> None:
        pass


class Replay:
    """Makes K and V of evicted tokens, layer by layer in the order of a forward pass.

    A layer that a checkpoint belongs to starts from it. Where the next layer has none, the tokens'
    stream is carried on to it by running the block (T5); else K and V are one projection (T1).

    Parameters
    ----------
    weights : Weights
    checkpoints : dict
        By the index of the layer whose input they hold; layer 0 has one.
    holds_ids : bool
        Whether the checkpoint of layer 0 holds token ids.
    chunk : int
        Rows that are replayed together; a chunk of a checkpoint.
    """

    def __init__(
        self, weights: Weights, checkpoints: dict[int, Checkpoint], holds_ids: bool, chunk: int
    ) -> None:
        self._weights = weights
        self._checkpoints = checkpoints
        self._holds_ids = holds_ids
        self._chunk = chunk
        self._first = 0  # rows before it are forgotten, and not replayed
        self._stream: dict[int, Stream] = {}  # by a chunk's first row: what is carried on

    def fill(self, layer: Layer, evicted: int, k: Keys, v: Values) -> None:
        """Write K and V of the first `evicted` tokens at a layer into ``(S, G, d)`` arrays."""
        checkpoint = self._checkpoints.get(layer.index)
        if checkpoint is not None:
            self._stream = {}
            self._first = min(checkpoint.first, evicted)
        self._blank(k, v)
        for start in range(self._first, evicted, self._chunk):
            positions = np.arange(start, min(start + self._chunk, evicted))
            rows = self._input(layer, start, len(positions))
            if self._carries_on(layer):
                span = Span(slice(0, len(positions)), positions, Prefix(k, v))
                self._stream[start] = block(layer, rows, positions, [span])
            else:
                written = (slice(start, start + len(positions)), ...)
                k[written], v[written] = kv_from_residual(rows, positions, layer)
        if not self._carries_on(layer):
            self._stream = {}

    def _blank(self, k: Keys, v: Values) -> None:
        """Set the rows of forgotten tokens to 0.

        The windows of these layers hide them, and attention multiplies what is hidden by 0. But
        memory that nobody has written may hold NaN, and 0 times NaN is NaN.
        """
        k[: self._first, ...] = 0.0
        v[: self._first, ...] = 0.0

    def _carries_on(self, layer: Layer) -> bool:
        """Whether the layer after this one needs the stream that comes out of this one."""
        after = layer.index + 1
        return after < len(self._weights.layers) and after not in self._checkpoints

    def _input(self, layer: Layer, start: int, count: int) -> Stream:
        """The layer's input for the `count` tokens from `start` on, which are in one chunk."""
        checkpoint = self._checkpoints.get(layer.index)
        if checkpoint is None:
            return self._stream[start][:count, ...]
        rows = checkpoint.chunk(start)[:count, ...]
        if self._holds_ids:
            return embed(self._weights, rows)
        return rows

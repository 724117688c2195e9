"""An old text's cache for a new text: some rows are kept, the others are made again.

A row that is made again at a layer attends to the mixture of old and new rows there. A row that is
left out at one layer is out at all layers above, since nothing makes its stream any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import NewKeys, NewValues, Pattern, Positions, Stream, TokenIds, to_numpy
from ..decoder import Span, block, embed, unembed
from ..layers import Layer
from ..memory import Attended
from ..model import Model
from ..verify.bits import same_bits

KV = tuple[list[np.ndarray], list[np.ndarray]]
"""Keys and values of a text, layer by layer, each ``(T, G, d)``."""


class Mixed:
    """A `Memory` of old rows, some of which are overwritten."""

    watches = False

    def __init__(self, old: KV) -> None:
        self.keys = [rows.copy() for rows in old[0]]
        self.values = [rows.copy() for rows in old[1]]

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """Nothing of its own: rows are given by place."""
        return ids, np.arange(len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """Write these rows in their places, and show all."""
        keys = self.keys[layer.index]
        values = self.values[layer.index]
        keys[positions] = to_numpy(k)
        values[positions] = to_numpy(v)
        return np.arange(len(keys)), keys, values

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """Nobody asks for it."""

    def evict(self, layer: Layer) -> None:
        """Nothing goes."""

    def advance(self, tokens: int) -> None:
        """Nothing is counted."""


def mended(
    model: Model, old: KV, ids: Sequence[int], computed: np.ndarray
) -> tuple[KV, np.ndarray]:
    """The cache after some rows were made again, and the logits of rows made at all layers.

    Parameters
    ----------
    model : Model
    old : KV
        Of a text of the same length.
    ids : sequence of int
        The new text.
    computed : (L, T) bool
        Which row is made at which layer; what is False at a layer is taken for False above it.

    Returns
    -------
    KV, (rows, V)
    """
    memory = Mixed(old)
    there = np.flatnonzero(computed[0])
    stream = to_numpy(embed(model.weights, np.asarray(ids)[there]))
    for layer, wanted in zip(model.layers, computed, strict=True):
        stay = wanted[there]
        there = there[stay]
        stream = stream[stay]
        if len(there):
            stream = to_numpy(
                block(layer, stream, there, [Span(slice(0, len(there)), there, memory)])
            )
    logits = np.empty((0, model.config.vocab_size), np.float32)
    if len(there):
        logits = to_numpy(unembed(model.weights, stream))
    return (memory.keys, memory.values), logits


def unchanged(one: KV, two: KV) -> np.ndarray:
    """Which rows have the same bits in both caches, ``(L, T)``."""
    return np.array(
        [
            [
                same_bits(k[row], other_k[row]) and same_bits(v[row], other_v[row])
                for row in range(len(k))
            ]
            for k, v, other_k, other_v in zip(*one, *two, strict=True)
        ]
    )


def least(unchanged_rows: np.ndarray) -> np.ndarray:
    """The fewest rows to make that give the exact cache: those that change there or above."""
    changed = ~unchanged_rows
    return np.flip(np.logical_or.accumulate(np.flip(changed, 0), 0), 0)


def stacked(cache: KV) -> np.ndarray:
    """All of a cache in one array."""
    return np.stack([np.stack(rows) for rows in cache])

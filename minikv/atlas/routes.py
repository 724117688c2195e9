"""Routes: which tokens a layer works on, and decoders that are put together block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..arrays import Array, NewKeys, NewValues, Pattern, Positions, Stream, TokenIds, to_numpy
from ..decoder import Span, block, embed, unembed
from ..layers import Hook, Layer
from ..memory import Attended
from ..model import Model

Route = Callable[[np.ndarray], np.ndarray]
"""Which rows of a stream, ``(T, D)``, a layer works on, ``(T,)`` of bool; row by row."""


def bypass(route: Route) -> Hook:
    """A hook by which the rows that a route leaves out pass a layer unchanged."""
    before: list[np.ndarray] = []

    def hook(name: str, value: Array) -> Array:
        if name.endswith("hook_resid_pre"):
            before[:] = [to_numpy(value)]
        if name.endswith("hook_resid_post"):
            works = route(before[0])
            return np.where(works[:, None], to_numpy(value), before[0])
        return value

    return hook


def by_content(rows: np.ndarray) -> np.ndarray:
    """A route that a row decides by itself: by the sign of its first number."""
    return rows[:, 0] > 0


class Given:
    """A `Memory` that shows the same keys and values whatever is given."""

    watches = False

    def __init__(self, keys: Array, values: Array) -> None:
        self.keys = keys
        self.values = values

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """The whole text."""
        return ids, np.arange(len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """What was given at the beginning."""
        return np.arange(len(self.keys)), self.keys, self.values

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """Nobody asks for it."""

    def evict(self, layer: Layer) -> None:
        """Nothing goes."""

    def advance(self, tokens: int) -> None:
        """Nothing is counted."""


def stream_of(model: Model, ids: Sequence[int]) -> Stream:
    """The stream before block 0, ``(T, D)``."""
    return embed(model.weights, np.array(ids))


def passed(
    layer: Layer, stream: Stream, memory: Given | None = None, positions: Positions | None = None
) -> np.ndarray:
    """The stream behind a layer, ``(T, D)``."""
    where = np.arange(len(stream)) if positions is None else positions
    spans = [Span(slice(0, len(stream)), where, memory)]
    return to_numpy(block(layer, stream, where, spans))


def logits_of(model: Model, stream: Stream) -> np.ndarray:
    """Logits of a stream behind the last layer, ``(T, V)``."""
    return to_numpy(unembed(model.weights, stream))

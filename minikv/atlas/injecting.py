"""Keys and values that no token made: put before the text, or in the place of those that did."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..arrays import NewKeys, NewValues, Positions, Stream, to_numpy
from ..decoder import Span, block, unembed
from ..layers import Layer, no_hook
from ..memory import Attended, Memory
from ..model import Model
from ..verify.memories import Wrapped
from .ground import new_full


class Prefixed(Wrapped):
    """A full cache before which every query sees some rows drawn from a seed."""

    def __init__(self, count: int, seed: int = 0) -> None:
        super().__init__(new_full())
        self.count = count
        self.seed = seed

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        attended, keys, values = super().update(layer, positions, residual, k, v)
        rng = np.random.default_rng([self.seed, layer.index])
        rows = rng.standard_normal((2, self.count, *k.shape[1:])).astype(np.float32)
        extra_k, extra_v = (to_numpy(layer.arithmetic.settle(part)) for part in rows)
        return (
            np.concatenate([np.zeros(self.count, dtype=int), attended]),
            np.concatenate([extra_k, to_numpy(keys)]),
            np.concatenate([extra_v, to_numpy(values)]),
        )


def replayed(
    model: Model, ids: Sequence[int], memory: Memory, make: Callable[[], Memory | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a pass, and those made again from its stream at layer 1; twice ``(T, V)``.

    `make` says what the replay remembers; None is nothing but the streams.
    """
    streams: dict[str, np.ndarray] = {}

    def keep(name: str, value: np.ndarray) -> np.ndarray:
        streams[name] = value
        return value

    logits = to_numpy(model.forward([ids], [memory], "all", keep))
    stream = streams["blocks.1.hook_resid_pre"]
    positions = np.arange(len(ids))
    span = Span(slice(0, len(ids)), positions, make())
    for layer in model.layers[1:]:
        stream = block(layer, stream, positions, [span], no_hook)
    return logits, to_numpy(unembed(model.weights, stream))

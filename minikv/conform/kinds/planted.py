"""Known faults of caches, planted in minikv: each a memory that is wrong in one way.

A `minikv.memory.Memory` says what positions new tokens have and what they attend to. Nearly every
fault that people report of a KV cache is a wrong answer to one of these two questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...arrays import Array, NewKeys, NewValues, Positions, Stream, TokenIds
from ...caches.full import Full as FullCache
from ...config import FULL, SLIDING, ModelConfig
from ...decoder import Weights
from ...layers import Hook, Layer, no_hook
from ...memory import Attended
from ...model import Model


@dataclass(frozen=True)
class Planted:
    """A fault by name.

    Attributes
    ----------
    memory : callable
        Makes the faulty memory.
    hook : callable
        Makes the hook of a call, given the model and whether the cache held tokens before.
    config : callable
        Makes the configuration of calls on a cache that holds tokens.
    """

    name: str
    memory: Callable[[Weights], FullCache] = FullCache
    hook: Callable[[Model, bool], Hook] | None = None
    config: Callable[[ModelConfig], ModelConfig] | None = None

    def run(self, model: Model, ids: Sequence[int], chunks: Sequence[int]) -> np.ndarray:
        """Logits of every position, ``(T, V)`` float64."""
        memory = self.memory(model.weights)
        hook = self.hook or as_it_is
        later = Model(self.later(model.weights))
        rows = []
        start = 0
        for count in chunks:
            new = list(ids[start : start + count])
            if start:
                model = later
                memory.weights = later.weights
            with np.errstate(invalid="ignore"):  # a query that sees nothing
                out = model.forward([new], [memory], "all", hook(model, start > 0))
            rows.append(np.asarray(out, dtype=np.float64))
            start += count
        return np.concatenate(rows)

    def later(self, weights: Weights) -> Weights:
        """The weights under the configuration of later calls."""
        if self.config is None:
            return weights
        config = self.config(weights.config)
        layers = tuple(replace(layer, config=config) for layer in weights.layers)
        return replace(weights, config=config, layers=layers)


# Positions. What a token was rotated to and where it stands in the mask are one number in minikv;
# memories with wrong ones say apart where keys stand.


class Moved(FullCache):
    """Rotates new tokens to other positions; the mask knows the true ones."""

    def moved(self, count: int) -> Positions:
        """Where new tokens are rotated to, behind those that were seen; ``(count,)``."""
        raise NotImplementedError

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        ids, positions = super().begin(ids)
        if not self.seen:
            return ids, positions
        return ids, self.moved(len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        true, keys, values = super().update(layer, positions, residual, k, v)
        return relabelled(true, positions), keys, values


def relabelled(true: np.ndarray, queries: Positions) -> np.ndarray:
    """Labels of keys under which causal masks of moved queries are those of true positions.

    Old keys stand right before the first query, as many positions as they truly do.
    """
    old = len(true) - len(queries)
    before = np.arange(-old, 0) + queries[0]
    return np.concatenate([before, queries])


class Restarting(Moved):
    """Positions count from 0 in every call."""

    def moved(self, count: int) -> Positions:
        return np.arange(count)


class OneLate(Moved):
    """Positions are one too high once there is a past."""

    def moved(self, count: int) -> Positions:
        return self.seen + 1 + np.arange(count)


class OneEarly(Moved):
    """Positions are one too low once there is a past."""

    def moved(self, count: int) -> Positions:
        return self.seen - 1 + np.arange(count)


# What is attended to.


class WithoutOld(FullCache):
    """Attends to the new tokens of a call only."""

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        known, keys, values = super().update(layer, positions, residual, k, v)
        return last(known, keys, values, k.shape[0])


class WithoutNewest(FullCache):
    """A single new token does not attend to itself once there is a past."""

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        known, keys, values = super().update(layer, positions, residual, k, v)
        if k.shape[0] != 1 or not self.seen:
            return known, keys, values
        return known[:-1], keys[:-1, ...], values[:-1, ...]


class WithoutFirst(FullCache):
    """The first token is not attended to once there is a past."""

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        known, keys, values = super().update(layer, positions, residual, k, v)
        if not self.seen:
            return known, keys, values
        return known[1:], keys[1:, ...], values[1:, ...]


class OpenChunk(FullCache):
    """All tokens of a chunk see each other once there is a past."""

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        known, keys, values = super().update(layer, positions, residual, k, v)
        if not self.seen:
            return known, keys, values
        return np.minimum(known, positions[0]), keys, values


class RotatedAgain(FullCache):
    """Keys that were stored turned are turned again when they are read, and stored so."""

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        if self.seen:
            buffer = self._k[layer.index]
            old = self._swapped(buffer[:, : self.seen, :])
            again = layer.turned(old, np.arange(self.seen))
            buffer[:, : self.seen, :] = self._swapped(again)
        return super().update(layer, positions, residual, k, v)


class RoundedStore(FullCache):
    """K and V are kept in a coarser dtype."""

    def rounded(self, x: Array) -> Array:
        """A row as it is kept."""
        raise NotImplementedError

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        return super().update(layer, positions, residual, self.rounded(k), self.rounded(v))


class Float16Store(RoundedStore):
    """K and V in float16."""

    def rounded(self, x: Array) -> Array:
        return x.astype(np.float16).astype(x.dtype)


class Bfloat16Store(RoundedStore):
    """K and V in bfloat16."""

    def rounded(self, x: Array) -> Array:
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return kept.view(np.float32).astype(x.dtype)


class ByteStore(RoundedStore):
    """K and V in 8 bits and a scale for each head's row."""

    def rounded(self, x: Array) -> Array:
        scale = np.abs(x).max(axis=-1, keepdims=True) / 127 + 1e-30
        return np.round(x / scale) * scale


def last(
    known: np.ndarray, keys: Array, values: Array, count: int
) -> tuple[np.ndarray, Array, Array]:
    """The last rows of what is attended to."""
    return known[-count:], keys[-count:, ...], values[-count:, ...]


# What happens to activations.


def as_it_is(model: Model, begun: bool) -> Hook:
    """Nothing."""
    return no_hook


def other_scale(model: Model, begun: bool) -> Hook:
    """Scores are divided by the square root of twice the width once there is a past."""

    def hook(name: str, value: Array) -> Array:
        if begun and name.endswith("hook_rot_q"):
            return value / np.sqrt(2.0)
        return value

    return hook


def heads_in_turn(model: Model, begun: bool) -> Hook:
    """Query head h reads K/V head ``h % G`` in place of ``h // (H / G)``."""
    groups = model.config.num_key_value_heads
    heads = np.arange(model.config.num_attention_heads)
    shared = len(heads) // groups
    places = (heads % groups) * shared + heads // groups

    def hook(name: str, value: Array) -> Array:
        if name.endswith("hook_rot_q"):
            moved = value.copy()
            moved[:, places] = value
            return moved
        if name.endswith("hook_z"):
            return value[:, places]
        return value

    return hook


def longer_window(config: ModelConfig) -> ModelConfig:
    """Windows reach one position further."""
    return replace(config, sliding_window=(config.sliding_window or 0) + 1)


def shorter_window(config: ModelConfig) -> ModelConfig:
    """Windows reach one position less."""
    return replace(config, sliding_window=max((config.sliding_window or 0) - 1, 1))


def no_window(config: ModelConfig) -> ModelConfig:
    """Every layer sees all."""
    return replace(config, layer_types=(FULL,) * config.num_hidden_layers)


def window_everywhere(config: ModelConfig) -> ModelConfig:
    """Every layer has the window that some have."""
    if config.sliding_window is None:
        return config
    return replace(config, layer_types=(SLIDING,) * config.num_hidden_layers)


PLANTED: tuple[Planted, ...] = (
    Planted("positions restart in the chunk", Restarting),
    Planted("a position off by one", OneLate),
    Planted("a position off by one", OneEarly),
    Planted("the mask sliced by new tokens", WithoutOld),
    Planted("the newest row dropped", WithoutNewest),
    Planted("a row lost", WithoutFirst),
    Planted("the mask of a chunk lets the future in", OpenChunk),
    Planted("stored keys rotated wrongly", RotatedAgain),
    Planted("a coarser K/V store", Float16Store),
    Planted("a coarser K/V store", Bfloat16Store),
    Planted("a coarser K/V store", ByteStore),
    Planted("the softmax scale", hook=other_scale),
    Planted("the order of K/V heads", hook=heads_in_turn),
    Planted("a window off by one", config=longer_window),
    Planted("a window off by one", config=shorter_window),
    Planted("a window missing", config=no_window),
    Planted("a window in the wrong layers", config=window_everywhere),
)
"""What is tried, in this order."""

"""What every cache policy shares: one sequence's memory, between the calls of the decoder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..errors import CacheError

if TYPE_CHECKING:
    from ..decoder import Weights
    from ..layers import Layer

Array = Any


class Cache:
    """The memory of one sequence. A policy overrides what it does differently.

    A call of the decoder goes through ``begin``, then for each layer ``update``, ``observe`` (once
    a block of queries, where ``watches``) and ``evict``, then ``advance``. Only ``advance`` makes
    the call's tokens part of the sequence.

    Positions live here, not in the model: `seen` tokens have gone by, and fewer may be stored.

    Parameters
    ----------
    weights : minikv.decoder.Weights
        Of the model that the cache serves.
    **parameters
        Of the policy; they are part of a saved state.
    """

    policy: ClassVar[str] = ""
    watches: ClassVar[bool] = False  # whether `observe` wants the attention weights
    seen: int

    def __init__(self, weights: Weights, **parameters: Any) -> None:
        self.weights, self.parameters = weights, parameters
        self._xp, self._dtype = weights.arithmetic.xp, weights.arithmetic.dtype
        self._row = (weights.config.num_key_value_heads, weights.config.head_dim)
        self._itemsize = 8 if weights.arithmetic.name == "float64" else 4
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.seen = 0

    def begin(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens to run for these new ones, and their positions; both ``(T,)``."""
        return ids, np.arange(self.seen, self.seen + len(ids))

    def update(
        self, layer: Layer, positions: np.ndarray, residual: Array, k: Array, v: Array
    ) -> tuple[np.ndarray, Array, Array]:
        """Take the rows of new tokens at one layer: ``(T, D)``, ``(T, G, d)``, ``(T, G, d)``.

        Returns the positions, keys and values that these tokens attend to, including their own:
        ``(S,)`` ascending, or ``(S, G)`` where each head keeps tokens of its own, and twice
        ``(S, G, d)``.
        """
        raise NotImplementedError

    def observe(self, layer: Layer, positions: np.ndarray, pattern: Array) -> None:
        """See the ``(H, T, S)`` attention weights of the queries at `positions`."""

    def evict(self, layer: Layer) -> None:
        """Attention at this layer is done; drop what the policy drops."""

    def advance(self, tokens: int) -> None:
        """Make the call's new tokens part of the sequence."""
        self.seen += tokens

    @property
    def stored(self) -> int:
        """Tokens whose K and V are held (per layer and head)."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of what is held for the tokens seen, without allocated reserve."""
        raise NotImplementedError

    def truncate(self, length: int) -> None:
        """Forget the tokens at positions `length` and up."""
        if not 0 <= length <= self.seen:
            raise CacheError(f"cannot truncate to {length} tokens: the cache has seen {self.seen}")
        self._truncate(length)
        self.seen = length

    def fork(self) -> Self:
        """An independent copy, to continue the same text in two ways."""
        twin = type(self)(self.weights, **self.parameters)
        twin._restore({name: np.array(array) for name, array in self._tensors().items()})
        return twin

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Tensors and metadata that `load_state` reads back, as safetensors stores them."""
        return self._tensors(), self._metadata()

    def load_state(self, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        """Become what `state` described.

        Raises
        ------
        CacheError
            If the state belongs to another policy, model or arithmetic, or is incomplete.
        """
        for key, expected in self._metadata().items():
            if metadata.get(key) != expected:
                raise CacheError(
                    f"the saved cache has {key} {metadata.get(key)}, expected {expected}; "
                    "load it into a cache made as it was, by the same model"
                )
        try:
            self._restore(tensors)
        except (KeyError, ValueError, IndexError) as error:
            self.reset()
            raise CacheError(f"the saved cache state is damaged: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file; an interrupted save leaves the old file whole."""
        from safetensors.numpy import save

        tensors, metadata = self.state()
        data = save({name: np.ascontiguousarray(a) for name, a in tensors.items()}, metadata)
        path = Path(path)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise

    def load(self, path: str | Path) -> None:
        """Read a file written by `save`; raises `CacheError` like `load_state`."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise CacheError(f"{path} is not a saved cache: {error}") from None
        self.load_state(tensors, metadata)

    def _metadata(self) -> dict[str, str]:
        norms = hashlib.sha256(json.dumps(self.weights.config.to_dict()).encode())
        for layer in self.weights.layers:
            norms.update(np.asarray(layer.input_layernorm).tobytes())
            norms.update(np.asarray(layer.post_attention_layernorm).tobytes())
        return {
            "policy": self.policy,
            "parameters": json.dumps(self.parameters, sort_keys=True, default=sorted),
            "arithmetic": self.weights.arithmetic.name,
            "model": norms.hexdigest(),
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def _truncate(self, length: int) -> None:
        raise NotImplementedError

    def _checked(self, array: np.ndarray, shape: tuple[int, ...]) -> Array:
        """A saved tensor as an array of the namespace, if it has the shape expected."""
        if array.shape != shape:
            raise ValueError(f"a tensor has shape {array.shape}, expected {shape}")
        return self._xp.asarray(array)

    def _empty(self, *shape: int) -> Array:
        return self._xp.empty(shape, dtype=self._dtype)

    def _kv_bytes(self, rows: int) -> int:
        """Bytes of K and V of that many rows of one layer."""
        return rows * 2 * math.prod(self._row) * self._itemsize


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` if it is a whole number of at least `least`, else a `CacheError` naming it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise CacheError(f"{name} is {value!r}, expected a whole number from {least} up")
    return int(value)

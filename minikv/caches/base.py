"""What every cache policy shares: one sequence's memory, between the calls of the decoder."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..errors import CacheError
from ..saving import Savable

if TYPE_CHECKING:
    from ..decoder import Weights
    from ..layers import Layer

Attended = tuple[np.ndarray, Any, Any]  # positions, keys and values that tokens attend to


class Cache(Savable):
    """The memory of one sequence. A policy overrides what it does differently.

    A call of the decoder goes through ``begin``, then for each layer ``update``, ``observe`` (once
    a block of queries, where ``watches``) and ``evict``, then ``advance``. Only ``advance`` makes
    the call's tokens part of the sequence.

    Positions live here, not in the model: `seen` tokens have gone by, and fewer may be stored.

    Parameters
    ----------
    weights : minikv.decoder.Weights
        Of the model that the cache serves.
    parameters : dict, optional
        Of the policy, as JSON can hold them; they are part of a saved state.
    """

    policy: ClassVar[str] = ""
    watches: ClassVar[bool] = False  # whether `observe` wants the attention weights
    seen: int

    def __init__(self, weights: Weights, parameters: dict[str, Any] | None = None) -> None:
        self.weights, self.parameters = weights, parameters or {}
        self._xp, self._dtype = weights.arithmetic.xp, weights.arithmetic.dtype
        self._row = (weights.config.num_key_value_heads, weights.config.head_dim)
        self._itemsize = weights.arithmetic.itemsize
        self.reset()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.seen} tokens seen, {self.stored} kept as K and V>"

    def reset(self) -> None:
        """Forget everything."""
        self.seen = 0

    def begin(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens to run for these new ones, and their positions; both ``(T,)``."""
        return ids, np.arange(self.next_position, self.next_position + len(ids))

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        """Take the rows of new tokens at one layer: ``(T, D)``, ``(T, G, d)``, ``(T, G, d)``.

        Returns the positions, keys and values that these tokens attend to, including their own:
        ``(S,)`` ascending, or ``(S, G)`` where each head keeps tokens of its own, and twice
        ``(S, G, d)``.
        """
        raise NotImplementedError

    def observe(self, layer: Layer, positions: np.ndarray, pattern: Any) -> None:
        """See the ``(H, T, S)`` attention weights of the queries at `positions`."""

    def evict(self, layer: Layer) -> None:
        """Attention at this layer is done; drop what the policy drops."""

    def advance(self, tokens: int) -> None:
        """Make the call's new tokens part of the sequence."""
        self.seen += tokens

    @property
    def next_position(self) -> int:
        """Position of the next token."""
        return self.seen

    @property
    def stored(self) -> int:
        """Tokens whose K and V are held (per layer and head)."""
        return self.seen

    @property
    def nbytes(self) -> int:
        """Bytes of what is held for the tokens seen, without allocated reserve."""
        raise NotImplementedError

    def truncate(self, length: int) -> None:
        """Forget the tokens at positions `length` and up."""
        if (length := whole("length", length, 0)) > self.seen:
            raise CacheError(f"cannot truncate to {length} tokens: the cache has seen {self.seen}")
        self._truncate(length)
        self.seen = length

    def fork(self) -> Self:
        """An independent copy, to continue the same text in two ways."""
        return self._twin(self._tensors(), self.seen)

    def _twin(self, tensors: dict[str, np.ndarray], seen: int) -> Self:
        twin = copy.copy(self)
        twin.reset()
        twin.seen = seen
        twin._restore(tensors)
        return twin

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over copies of `tensors` after `reset`, with `seen` set."""
        raise NotImplementedError

    def _truncate(self, length: int) -> None:
        """Drop what is at `length` and up, where rows from `seen` on are not simply unread."""

    def _checked(self, array: np.ndarray, *shape: int, dtype: str = "") -> np.ndarray:
        """A copy of a saved tensor that must have this shape; `dtype` is the model's by default."""
        dtype = dtype or f"float{8 * self._itemsize}"
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"a tensor is {array.dtype} {array.shape}, expected {dtype} {shape}")
        return np.array(array)

    def _empty(self, *shape: int) -> Any:
        if self._xp.__name__.startswith("jax"):
            raise CacheError(
                f"the cache {self.policy!r} assigns in place, which JAX's arrays "
                "refuse: use the cache 'none' or another backend"
            )
        return self._xp.empty(shape, dtype=self._dtype)

    def _kv_bytes(self, rows: int) -> int:
        """Bytes of K and V of that many rows of one layer."""
        return rows * 2 * math.prod(self._row) * self._itemsize


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` if it is a whole number of at least `least`, else a `CacheError` naming it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise CacheError(f"{name} is {value!r}, expected a whole number from {least} up")
    return int(value)

"""What every cache policy shares: one sequence's memory, between the calls of the decoder."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from ..arrays import Array, NewKeys, NewValues, Pattern, Positions, Stream, TokenIds
from ..decoder import Weights
from ..errors import CacheError
from ..layers import Layer
from ..memory import Attended
from ..numbers import whole
from .saving import Savable, expect


@dataclass(eq=False, repr=False)
class Cache(Savable):
    """The memory of one sequence. A policy overrides what it does differently.

    A call of the decoder goes through ``begin``, then for each layer ``update``, ``observe`` (once
    for each run of queries that attention takes together, where ``watches``) and ``evict``, then
    ``advance``: the protocol `minikv.memory.Memory`. Only ``advance`` makes the call's tokens part
    of the sequence.

    Positions live here, not in the model: `seen` tokens have gone by, and fewer may be stored.
    Every policy writes `reset`, `update`, `nbytes`, `_tensors` and `_restore`; the rest may stay.

    A policy is a dataclass. Its parameters are its fields, written once, in the order in which the
    constructor takes them.

    Parameters
    ----------
    weights : minikv.decoder.Weights
        Of the model that the cache serves.

    Attributes
    ----------
    policy : str
        The name by which `make_cache` makes it.
    watches : bool
        Whether `observe` wants the attention weights.
    seen : int
        Tokens of the sequence.
    """

    policy: ClassVar[str] = ""
    watches: ClassVar[bool] = False

    weights: Weights

    def __post_init__(self) -> None:
        config = self.weights.config
        self._xp = self.weights.arithmetic.xp
        self._row = (config.num_key_value_heads, config.head_dim)  # shape of a token's K, or V
        self.check()
        self.reset()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.seen} tokens seen, {self.stored} kept as K and V>"

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        """Settings that together show what the policy does, for caches of about `budget` tokens.

        The tests run every policy with all of its examples.
        """
        return [{}]

    @property
    def parameters(self) -> dict[str, Any]:
        """The policy's parameters, as JSON can hold them; they are part of a saved state."""
        names = [field.name for field in fields(self) if field.name != "weights"]
        values = {name: getattr(self, name) for name in names}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def check(self) -> None:
        """Check the parameters, and settle those that were left open."""

    def reset(self) -> None:
        """Forget everything."""
        self.seen = 0

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """Tokens to run for these new ones, and their positions; both ``(T,)``."""
        return ids, np.arange(self.next_position, self.next_position + len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """Take the rows of new tokens at one layer: ``(T, D)``, ``(T, G, d)``, ``(T, G, d)``.

        Returns the positions, keys and values that these tokens attend to, including their own:
        ``(S,)`` ascending, or ``(S, G)`` where each head keeps tokens of its own, and twice
        ``(S, G, d)``.
        """
        raise NotImplementedError

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
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
    def longest(self) -> int:
        """How many tokens it can have seen: the model's context."""
        return self.weights.config.max_position_embeddings

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
        length = whole("length", length, 0, error=CacheError)
        if length > self.seen:
            raise CacheError(f"cannot truncate to {length} tokens: the cache has seen {self.seen}")
        self._truncate(length)
        self.seen = length

    def fork(self) -> Self:
        """An independent copy, to continue the same text in two ways."""
        return self._twin(self._tensors(), self.seen)

    def _twin(self, tensors: dict[str, np.ndarray], seen: int) -> Self:
        twin = copy.copy(self)
        twin.reset()
        expect(
            tensors.keys() == twin._tensors().keys(),
            f"it has the tensors {', '.join(sorted(tensors)):.80}, expected others",
        )
        twin.seen = seen
        twin._restore(tensors)
        return twin

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over copies of `tensors` after `reset`, with `seen` set.

        Raises `CacheError` for what no cache with this `seen` can hold.
        """
        raise NotImplementedError

    def _truncate(self, length: int) -> None:
        """Drop what is held of positions `length` and up.

        Nothing to do for a policy that never reads rows from `seen` on.
        """

    def _checked(self, array: np.ndarray, *shape: int, dtype: str = "") -> np.ndarray:
        """A copy of a saved tensor that must have this shape; `dtype` is the model's by default."""
        dtype = dtype or f"float{8 * self.weights.arithmetic.itemsize}"
        expect(
            array.shape == shape and array.dtype == dtype,
            f"a tensor is {array.dtype} {array.shape}, expected {dtype} {shape}",
        )
        return np.array(array)

    def _checked_ids(self, ids: np.ndarray, count: int) -> np.ndarray:
        """A copy of saved token ids, which must be in the vocabulary."""
        ids = self._checked(ids, count, dtype="int32")
        last = self.weights.config.vocab_size - 1
        inside = (ids >= 0) & (ids <= last)
        expect(bool(inside.all()), f"a token id is outside the vocabulary (0 to {last})")
        return ids

    def _empty(self, *shape: int) -> Array:
        """An array to be written to, in the model's dtype."""
        if self._xp.__name__.startswith("jax"):
            raise CacheError(
                f"the cache {self.policy!r} assigns in place, which JAX's arrays "
                "refuse: use the cache 'none' or another backend"
            )
        return self._xp.empty(shape, dtype=self.weights.arithmetic.dtype)

    def _kv_bytes(self, rows: int) -> int:
        """Bytes of K and V of that many rows of one layer."""
        return rows * 2 * math.prod(self._row) * self.weights.arithmetic.itemsize

    def _stream_bytes(self, rows: int) -> int:
        """Bytes of that many rows of the residual stream."""
        return rows * self.weights.config.hidden_size * self.weights.arithmetic.itemsize

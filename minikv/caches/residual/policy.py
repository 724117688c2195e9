"""Which K and V are kept, which are made again, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, Stream, TokenIds, to_numpy
from ...errors import CacheError
from ...layers import Layer
from ...memory import Attended
from ...numbers import whole
from ..base import Cache
from ..registry import register
from ..saving import expect
from .checkpoints import Checkpoint, checkpoint_layers
from .replay import Replay
from .ring import Ring


@register
@dataclass(eq=False, repr=False)
class Residual(Cache):
    """Keep K/V of the newest `budget` tokens, and residual checkpoints of all tokens.

    Working memory while a token is decoded is K and V of *one* block for the whole text, made,
    read and dropped layer by layer, and, between checkpoints, the replayed stream of the evicted
    tokens at one layer.

    Parameters
    ----------
    weights : Weights
    budget : int
        Tokens whose K/V are kept, 0 up.
    checkpoints : {"embedding", "tokens", "every"} or int or iterable of int
        Layers whose input residual is kept: the first alone (one vector a token), not even that
        (the token id, 4 bytes), all of them (recomputing is one projection), every k-th, or a set
        that contains 0.
    forget : bool
        Drop the rows of checkpoints that no later token can depend on, in chunks. That needs
        sliding windows in all layers that a checkpoint is for: it then keeps `reach` rows, up to
        the next checkpoint (T11). `truncate` can go back no further than what is left allows.
    chunk : int
        Checkpoints are stored, and replayed, in chunks of so many tokens. No bit depends on it.

    Attributes
    ----------
    layers_kept : tuple of int
        The layers that `checkpoints` names.

    Notes
    -----
    Bytes held: ``stored * L * 2 * G * d * s + seen * len(checkpoints) * D * s``, or ``seen * 4``
    for the second term with token ids, less what is forgotten, where `stored` is ``min(seen,
    budget)``; after `truncate` or an interrupted call it is less, until the next call. A checkpoint
    is kept for recent tokens too: it is what they will be recomputed from. An interrupted call
    loses nothing: all K/V count as evicted, since it may have overwritten some.

    Raises
    ------
    CacheError
        If `budget` is negative, or `checkpoints` names no layers, lacks 0 or has a layer too many.
    """

    policy = "residual"

    budget: int = 128
    checkpoints: str | int | Iterable[int] = "embedding"
    forget: bool = False
    chunk: int = 256

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        chunk = max(1, budget - 1)  # so that a replay takes more than one
        several = [
            {"budget": budget, "checkpoints": kept, "chunk": chunk}
            for kept in ("embedding", "tokens", "every", 2)
        ]
        return [{"budget": budget}, *several, {"budget": 0}]

    def check(self) -> None:
        layers = len(self.weights.layers)
        self.budget = whole("budget", self.budget, 0, error=CacheError)
        self.chunk = whole("chunk", self.chunk, error=CacheError)
        self.forget = bool(self.forget)
        self.layers_kept = checkpoint_layers(self.checkpoints, layers)
        self._holds_ids = isinstance(self.checkpoints, str) and self.checkpoints == "tokens"
        if not self._holds_ids:
            self.checkpoints = self.layers_kept  # two ways of writing the same are the same
        self._capacity = min(self.budget, self.longest)  # of a ring
        self._needed = self.rows_needed() if self.forget else {}

    def rows_needed(self) -> dict[int, int]:
        """For each checkpoint that need not hold all tokens, how many of the newest it needs.

        By the index of its layer. What is recomputed from it ends where the next checkpoint begins.
        """
        ends = (*self.layers_kept[1:], len(self.weights.layers))
        needed = {}
        for index, end in zip(self.layers_kept, ends, strict=True):
            reach = self.weights.config.reach(index, end)
            if reach is not None:
                needed[index] = reach
        return needed

    def reset(self) -> None:
        self.seen = 0
        self._evicted = 0  # tokens before it have no K and V here
        self._open = False  # whether a call has begun to overwrite the rings
        self._rings = [
            Ring(self._empty(self._capacity, *self._row), self._empty(self._capacity, *self._row))
            for _ in self.weights.layers
        ]
        if self._holds_ids:
            no_rows = self._xp.empty((0,), dtype=self._xp.int32)
        else:
            no_rows = self._empty(0, self.weights.config.hidden_size)
        self._held = {
            index: Checkpoint(self._xp, no_rows, self.chunk) for index in self.layers_kept
        }
        self._replay = Replay(self.weights, self._held, self._holds_ids, self.chunk)

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        if self._open:  # the call before was interrupted, and may have overwritten any row
            self._evicted = self.seen
            self._open = False
        for checkpoint in self._held.values():
            checkpoint.truncate(self.seen)
        if self._holds_ids:
            self._held[0].append(self._xp.asarray(ids.astype(np.int32)))
        return super().begin(ids)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        self._open = True  # until `advance`
        if layer.index in self._held and not self._holds_ids:
            self._held[layer.index].append(residual)
        ring = self._rings[layer.index]
        end = self.seen + k.shape[0]
        everything_fits = self._evicted == 0 and end <= self._capacity  # nothing to make again
        if everything_fits:
            ring.write(self.seen, k, v)
            return np.arange(end), *ring.from_the_start(end)
        all_k = self._empty(end, *self._row)  # (S, G, d), as all_v
        all_v = self._empty(end, *self._row)
        self._replay.fill(layer, self._evicted, all_k, all_v)
        for rows, recent_k, recent_v in ring.read(self._evicted, self.seen):
            all_k[rows, ...] = recent_k
            all_v[rows, ...] = recent_v
        all_k[self.seen :, ...] = k
        all_v[self.seen :, ...] = v
        first = self._first_not_in_ring(end)
        ring.write(first, all_k[first:, ...], all_v[first:, ...])
        return np.arange(end), all_k, all_v

    def _first_not_in_ring(self, end: int) -> int:
        """The oldest position that the rings are to hold from now on, and do not hold yet."""
        oldest = max(0, end - self._capacity)
        has_room_for_evicted = oldest < self._evicted  # after `truncate` or an interrupted call
        if has_room_for_evicted:
            return oldest
        return max(oldest, self.seen)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._evicted = max(0, self.seen - self._capacity)
        self._open = False
        for index, needed in self._needed.items():
            self._held[index].forget(self.seen - needed)

    @property
    def stored(self) -> int:
        if self._open:
            return 0
        return self.seen - self._evicted

    @property
    def nbytes(self) -> int:
        rows = sum(self.seen - checkpoint.first for checkpoint in self._held.values())
        checkpoints = 4 * rows if self._holds_ids else self._stream_bytes(rows)
        return self._kv_bytes(self.stored) * len(self._rings) + checkpoints

    def _truncate(self, length: int) -> None:
        for index, needed in self._needed.items():
            first = self._held[index].first
            least = first + needed
            if first and length < least:
                raise CacheError(
                    f"cannot truncate to {length} tokens, below {least}: what they "
                    "depend on is forgotten; reset, or set forget=False"
                )
        self._evicted = min(self._evicted, length)

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {}
        no_rows = to_numpy(self._empty(0, *self._row))
        start = self.seen - self.stored
        for index, ring in enumerate(self._rings):
            pieces = list(ring.read(start, self.seen))
            tensors[f"k.{index}"] = np.concatenate([no_rows, *(to_numpy(k) for _, k, _ in pieces)])
            tensors[f"v.{index}"] = np.concatenate([no_rows, *(to_numpy(v) for _, _, v in pieces)])
        for index, checkpoint in self._held.items():
            tensors[f"checkpoint.{index}"] = checkpoint.joined(self.seen)
        return tensors

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        held = len(np.atleast_1d(tensors["k.0"]))
        most = min(self.seen, self._capacity)
        expect(held <= most, f"it has K/V of {held} tokens, expected {most} at most")
        self._evicted = self.seen - held
        for index, ring in enumerate(self._rings):
            k = self._checked(tensors[f"k.{index}"], held, *self._row)
            v = self._checked(tensors[f"v.{index}"], held, *self._row)
            ring.write(self._evicted, self._xp.asarray(k), self._xp.asarray(v))
        for index, checkpoint in self._held.items():
            saved = tensors[f"checkpoint.{index}"]
            first = self.seen - len(np.atleast_1d(saved))
            expect(first >= 0, f"checkpoint {index} has more rows than tokens were seen")
            if first:
                enough = index in self._needed and self.seen - first >= self._needed[index]
                possible = enough and first % self.chunk == 0
                expect(possible, f"it has {self.seen - first} rows of checkpoint {index}, too few")
            if self._holds_ids:
                rows = self._checked_ids(saved, self.seen - first)
            else:
                width = self.weights.config.hidden_size
                rows = self._checked(saved, self.seen - first, width)
            checkpoint.restore(first, self._xp.asarray(rows))

"""KV-Direct: recent tokens keep K and V, older ones keep residual checkpoints.

Qasim et al. 2026, arXiv 2603.19664. What is evicted is recomputed: from a checkpoint at the layer
itself by one projection (T1), or by running the blocks from the nearest checkpoint below (T5).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..decoder import Span, block, embed
from ..errors import CacheError
from ..projection import kv_from_residual
from .base import Attended, Cache, whole

_CHUNK = 256  # tokens: checkpoints are stored, and replayed, in chunks of this many rows


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

    def __init__(
        self,
        weights: Any,
        budget: int = 128,
        checkpoints: str | int | Iterable[int] = "embedding",
        forget: bool = False,
    ) -> None:
        self.budget = whole("budget", budget, 0)
        self.layers_kept = checkpoint_layers(checkpoints, len(weights.layers))
        self._tokens_only = isinstance(checkpoints, str) and checkpoints == "tokens"
        self._capacity = min(self.budget, weights.config.max_position_embeddings)
        self._width = weights.config.hidden_size
        kept = "tokens" if self._tokens_only else list(self.layers_kept)
        ends = (*self.layers_kept[1:], len(weights.layers))
        self._needed = {
            at: rows
            for at, end in zip(self.layers_kept, ends, strict=True)
            if forget and (rows := weights.config.reach(at, end)) is not None
        }
        parameters = {"budget": self.budget, "checkpoints": kept, "forget": bool(forget)}
        super().__init__(weights, parameters)

    def reset(self) -> None:
        self.seen = self._evicted = 0  # tokens 0 to _evicted have no K/V here
        layers, xp = range(len(self.weights.layers)), self._xp
        self._k = [self._empty(self._capacity, *self._row) for _ in layers]  # rings: row p at
        self._v = [self._empty(self._capacity, *self._row) for _ in layers]  # p % capacity
        empty = xp.empty((0,), dtype=xp.int32) if self._tokens_only else self._empty(0, self._width)
        self._rows = {layer: Rows(xp, empty) for layer in self.layers_kept}
        self._replayed: list[Any] = []
        self._first = 0  # rows before it are not replayed
        self._open = False  # whether a call has begun to overwrite the rings

    def begin(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._open:
            self._evicted, self._open = self.seen, False
        for rows in self._rows.values():
            rows.truncate(self.seen)
        if self._tokens_only:
            self._rows[0].append(self._xp.asarray(ids.astype(np.int32)))
        return super().begin(ids)

    def advance(self, tokens: int) -> None:
        super().advance(tokens)
        self._evicted, self._open = max(0, self.seen - self._capacity), False
        for layer, needed in self._needed.items():
            self._rows[layer].forget(self.seen - needed)

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        self._open = True
        index, end = layer.index, self.seen + k.shape[0]
        if index in self._rows and not self._tokens_only:
            self._rows[index].append(residual)
        ring_k, ring_v = self._k[index], self._v[index]
        if end <= self._capacity and not self._evicted:  # nothing to recompute, no wrap
            ring_k[self.seen : end, ...], ring_v[self.seen : end, ...] = k, v
            return np.arange(end), ring_k[:end, ...], ring_v[:end, ...]

        all_k, all_v = self._empty(end, *self._row), self._empty(end, *self._row)
        self._recompute(layer, all_k, all_v)
        for rows, at in self._ring_slices(self._evicted, self.seen):
            all_k[rows, ...], all_v[rows, ...] = ring_k[at, ...], ring_v[at, ...]
        all_k[self.seen :, ...], all_v[self.seen :, ...] = k, v
        oldest = max(0, end - self._capacity)
        first = oldest if oldest < self._evicted else max(oldest, self.seen)  # not in the ring yet
        for rows, at in self._ring_slices(first, end):
            ring_k[at, ...], ring_v[at, ...] = all_k[rows, ...], all_v[rows, ...]
        return np.arange(end), all_k, all_v

    def _recompute(self, layer: Any, all_k: Any, all_v: Any) -> None:
        """Fill the rows of evicted tokens, chunk by chunk; carry their stream on if need be."""
        after = layer.index + 1
        carry_on = after < len(self.weights.layers) and after not in self._rows
        stored = self._rows.get(layer.index)
        prefix = _Prefix(all_k, all_v)
        if stored is not None:
            self._replayed = [None] * (stored.length // _CHUNK + 1)
            self._first = min(stored.first, self._evicted)
        for hidden in (all_k, all_v):  # by windows: of weight 0, but 0 times NaN is NaN
            hidden[: self._first, ...] = 0.0
        for start in range(self._first, self._evicted, _CHUNK):
            stop, number = min(start + _CHUNK, self._evicted), start // _CHUNK
            rows = self._replayed[number] if stored is None else stored.chunk(start)
            rows = rows[: stop - start, ...]
            if self._tokens_only and layer.index == 0:
                rows = embed(self.weights, rows)
            at = np.arange(start, stop)
            if carry_on:
                span = Span(slice(0, stop - start), at, prefix)
                self._replayed[number] = block(layer, rows, at, [span])
            else:
                all_k[start:stop, ...], all_v[start:stop, ...] = kv_from_residual(rows, at, layer)
        if not carry_on:
            self._replayed = []

    def _ring_slices(self, start: int, stop: int) -> Iterable[tuple[slice, slice]]:
        """Positions ``start..stop`` and their places in the ring, cut where it wraps."""
        while start < stop:
            at = start % self._capacity
            cut = min(stop, start - at + self._capacity)
            yield slice(start, cut), slice(at, at + cut - start)
            start = cut

    @property
    def stored(self) -> int:
        return 0 if self._open else self.seen - self._evicted

    @property
    def nbytes(self) -> int:
        width = 4 if self._tokens_only else self._width * self._itemsize
        rows = sum(self.seen - rows.first for rows in self._rows.values())
        return self._kv_bytes(self.stored) * len(self._k) + rows * width

    def _truncate(self, length: int) -> None:
        for layer, needed in self._needed.items():
            first = self._rows[layer].first
            if first and length < (least := first + needed):
                raise CacheError(
                    f"cannot truncate to {length} tokens, below {least}: what they "
                    "depend on is forgotten; reset, or set forget=False"
                )
        self._evicted = min(self._evicted, length)

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors, start = {}, self.seen - self.stored
        for name, rings in (("k", self._k), ("v", self._v)):
            for index, ring in enumerate(rings):
                parts = [to_numpy(ring[at, ...]) for _, at in self._ring_slices(start, self.seen)]
                tensors[f"{name}.{index}"] = np.concatenate([to_numpy(ring[:0, ...]), *parts])
        for index, rows in self._rows.items():
            tensors[f"checkpoint.{index}"] = rows.joined(self.seen)
        return tensors

    def _restore(self, tensors: dict[str, np.ndarray]) -> None:
        held = len(tensors["k.0"])
        if held > min(self.seen, self._capacity):
            raise ValueError(f"it has K/V of {held} tokens, expected {self._capacity} at most")
        self._evicted = start = self.seen - held
        for name, rings in (("k", self._k), ("v", self._v)):
            for index, ring in enumerate(rings):
                given = self._checked(tensors[f"{name}.{index}"], held, *self._row)
                for part, at in self._ring_slices(start, self.seen):
                    ring[at, ...] = self._xp.asarray(given[part.start - start : part.stop - start])
        for index, rows in self._rows.items():
            width, dtype = ((), "int32") if self._tokens_only else ((self._width,), "")
            saved = tensors[f"checkpoint.{index}"]
            rows.first = rows.length = max(0, self.seen - len(saved))
            if rows.first and (rows.first % _CHUNK or len(saved) < self._needed.get(index, np.inf)):
                raise ValueError(f"it has {len(saved)} rows of checkpoint {index}, too few")
            checked = self._checked(saved, self.seen - rows.first, *width, dtype=dtype)
            rows.append(self._xp.asarray(checked))


class Rows:
    """Rows appended in chunks of `_CHUNK`, so that growing never copies what is there.

    `empty` is an array of no rows, of the shape and dtype of what will be appended.
    """

    def __init__(self, xp: Any, empty: Any) -> None:
        self._xp, self._empty = xp, empty
        self.chunks: list[Any] = []
        self.first = self.length = 0  # rows before `first` are forgotten

    def append(self, rows: Any) -> None:
        taken, count = 0, rows.shape[0]
        while taken < count:
            filled = self.length % _CHUNK
            if not filled:
                chunk = (_CHUNK, *self._empty.shape[1:])
                self.chunks.append(self._xp.empty(chunk, dtype=self._empty.dtype))
            fit = min(_CHUNK - filled, count - taken)
            self.chunks[-1][filled : filled + fit, ...] = rows[taken : taken + fit, ...]
            self.length, taken = self.length + fit, taken + fit

    def chunk(self, start: int) -> Any:
        return self.chunks[(start - self.first) // _CHUNK]

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)
        del self.chunks[-(-(self.length - self.first) // _CHUNK) :]

    def forget(self, before: int) -> None:
        """Drop the chunks that lie before a row."""
        whole = max(0, before - self.first) // _CHUNK
        del self.chunks[:whole]
        self.first += whole * _CHUNK

    def joined(self, length: int) -> np.ndarray:
        """The rows that are left before row `length`."""
        parts = [to_numpy(part) for part in (self._empty, *self.chunks)]
        return np.concatenate(parts)[: length - self.first]


class _Prefix(Cache):
    """The cache of a chunk that is replayed: writes its K/V behind the rows before."""

    def __init__(self, k: Any, v: Any) -> None:
        self._k, self._v = k, v

    def update(self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any) -> Attended:
        start, stop = int(positions[0]), int(positions[-1]) + 1
        self._k[start:stop, ...], self._v[start:stop, ...] = k, v
        return np.arange(stop), self._k[:stop, ...], self._v[:stop, ...]


def checkpoint_layers(checkpoints: str | int | Iterable[int], layers: int) -> tuple[int, ...]:
    """The layers that `Residual`'s parameter names, ascending.

    Examples
    --------
    >>> checkpoint_layers(4, 10)
    (0, 4, 8)
    """
    if isinstance(checkpoints, str):
        named = {"embedding": 1, "tokens": 1, "every": layers}
        if checkpoints not in named:
            raise CacheError(
                f"checkpoints is {checkpoints!r}, expected 'embedding', 'tokens', "
                "'every', a number k (every k-th layer) or layers"
            )
        return tuple(range(named[checkpoints]))
    if isinstance(checkpoints, (int, np.integer)):
        return tuple(range(0, layers, whole("checkpoints", checkpoints)))
    try:
        kept = sorted({whole("a checkpoint layer", layer, 0) for layer in checkpoints})
    except TypeError:
        raise CacheError(f"checkpoints is {checkpoints!r}, expected a set of layers") from None
    if 0 not in kept:
        raise CacheError(f"checkpoint layers {kept} lack layer 0, where recomputing starts; add 0")
    if kept[-1] >= layers:
        raise CacheError(f"checkpoint layer {kept[-1]} does not exist: the model has {layers}")
    return tuple(kept)

"""Keys of one text split over ranks: each holds the K and V of some of its tokens.

What grows with a text is its cache; here every rank has all weights and a share of the tokens. A
query attends to the keys of all ranks in five calls: the largest score; the denominator, a sum of
integers; the largest weight and the sum of weights, which fix the grid of the whole row; and the
weighted values on that grid, which are rounded once. The bits are those of one process. Nothing is
scaled anew where a larger score is met, as in online softmax, where that rounds.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic, Exact, NumpyExact, Sight, Watch
from ..arithmetic.exact import round_to
from ..arithmetic.sight import UNWATCHED
from ..arrays import (
    HeadOutputs,
    Keys,
    NewKeys,
    NewValues,
    Pattern,
    Positions,
    Queries,
    Stream,
    TokenIds,
    Values,
)
from ..decoder import Weights
from ..errors import InputError
from ..layers import Layer
from ..memory import Attended
from .comm import Comm
from .sums import SplitExact


class ContextExact(SplitExact):
    """`Exact` whose attention has its keys on all ranks; the rest each rank does for itself."""

    def attention(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        sight: Sight,
        scale: float,
        watch: Watch = UNWATCHED,
    ) -> HeadOutputs:
        """Attention of the same queries on all ranks to the keys of each, ``(T, H, d)``."""
        if not watch.nobody or sight.per_head:
            raise InputError(
                "hooks and policies that look at attention see one rank's keys alone: use one rank"
            )
        outputs = []
        for start in range(0, q.shape[0], self.query_block):  # alike on all ranks
            queries = slice(start, min(start + self.query_block, q.shape[0]))
            scores = self.whole.scores(q[queries, ...], k, scale)  # (H, T, S of the rank)
            if k.shape[0]:
                hidden = sight.hidden(queries, slice(0, k.shape[0]))
                scores = self.masked(scores, hidden)
            outputs.append(self.weighed(self.weights_of_all(scores), v))
        return np.concatenate(outputs, axis=0)

    def weights_of_all(self, scores: Pattern) -> Pattern:
        """The softmax over the keys of all ranks, ``(H, T, S)``: this rank's columns of it."""
        top = scores.max(axis=-1, keepdims=True, initial=-math.inf)
        pattern = self.whole.exp(scores - self.comm.max(top))
        pattern = round_to(pattern, 2.0**-self.denominator_bits)
        pattern /= self.comm.sum(pattern.sum(axis=-1, keepdims=True))
        return pattern

    def weighed(self, pattern: Pattern, v: Values) -> HeadOutputs:
        """`Exact.weighted_sum` over all ranks' keys, ``(H, T, S), (S, G, d) -> (T, H, d)``."""
        heads, tokens, length = pattern.shape
        groups, head_dim = v.shape[1:]
        prepared = self.whole.values(v)
        powers = prepared.powers.transpose(1, 2, 0)
        pattern = pattern.reshape(groups, heads // groups * tokens, length) * powers
        top = self.comm.max(pattern.max(axis=-1, keepdims=True, initial=0.0))
        halves = self.comm.sum(np.stack(self.coarse_and_fine(pattern, top)))
        grid = Exact.grid(self, pattern, halves[0] + halves[1], self.significand - self.kv_bits)
        pattern = round_to(pattern, grid)
        pattern *= 1.0 / powers
        z = self.comm.sum(pattern @ prepared.rows.transpose(1, 0, 2))  # (G, R*T, d)
        z = z.reshape(heads, tokens, head_dim).transpose(1, 0, 2)
        return self.narrow(z) + np.float32(0.0)


class Dealt:
    """One rank's part of a text's full cache: every size-th token, from its rank on.

    A `minikv.memory.Memory`. After an interrupted call it goes on as if that had not been.
    """

    watches = False

    def __init__(self, weights: Weights, comm: Comm) -> None:
        config = weights.config
        self.weights = weights
        self.comm = comm
        self.seen = 0
        none = np.empty((0, config.num_key_value_heads, config.head_dim), np.float32)
        self._k = [none for _ in weights.layers]
        self._v = [none for _ in weights.layers]

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        return ids, np.arange(self.seen, self.seen + len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        held = len(self._own(0))  # without those of an interrupted call
        mine = positions % self.comm.size == self.comm.rank
        keys = np.concatenate([self._k[layer.index][:held], k[mine]])
        values = np.concatenate([self._v[layer.index][:held], v[mine]])
        self._k[layer.index] = keys
        self._v[layer.index] = values
        return self._own(len(positions)), keys, values

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """Nobody asks for it."""

    def evict(self, layer: Layer) -> None:
        """Nothing goes."""

    def advance(self, tokens: int) -> None:
        self.seen += tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the K and V that this rank holds."""
        return sum(array.nbytes for array in (*self._k, *self._v))

    def _own(self, new: int) -> Positions:
        """The positions of this rank among the tokens seen and those of the call."""
        return np.arange(self.comm.rank, self.seen + new, self.comm.size)


def over_context(arithmetic: Arithmetic, comm: Comm) -> ContextExact:
    """An exact arithmetic whose attention has its keys on all ranks of `comm`.

    Texts are then given `Dealt` as their memory, on every rank.

    Raises
    ------
    InputError
        If it is not `exact` on NumPy (or Numba).
    """
    if not isinstance(arithmetic, NumpyExact):
        raise InputError("keys are split over ranks under arithmetic 'exact', on numpy or numba")
    twin: Any = copy.copy(arithmetic)
    kind = type(arithmetic)
    split: Any = ContextExact
    twin.__class__ = type(split)(f"ContextExactOf{kind.__name__}", (split, kind), {})
    twin.whole = arithmetic
    twin.comm = comm
    return twin

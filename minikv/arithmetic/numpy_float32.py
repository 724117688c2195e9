"""`Float32` on NumPy: the same sums, of weights that lie close together, and scores in place."""

from __future__ import annotations

import numpy as np

from ..arrays import Features, HeadOutputs, Keys, Queries, Scores, Values
from .base import Matrix
from .float32 import Float32
from .in_place import largest_in, scores_in
from .masking import masked_in_place
from .room import Room, is_mapped
from .sight import UNWATCHED, Sight, Watch
from .tiles import in_tiles


class NumpyFloat32(Float32):
    """`Float32` whose matrices lie in large blocks of memory, or in their file; see `Room`."""

    def __init__(self) -> None:
        super().__init__(np)
        self._room = Room()

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        """A copy, but of a matrix in a file that is mapped, which stays there.

        So does a tied one where it is: it is the embedding too, which is held once.
        """
        if tied or is_mapped(matrix):
            return super().weight(matrix, name, tied)
        kept = self._room.empty(matrix.shape, np.float32)
        kept[:] = matrix
        return kept

    def gated(self, gate: Features, up: Features, activation: str) -> Features:
        product = super().gated
        return in_tiles(lambda x, y: product(x, y, activation), gate, up)

    def masked(self, scores: Scores, hidden: np.ndarray | None) -> Scores:
        return masked_in_place(scores, hidden)

    def attention(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        sight: Sight,
        scale: float,
        watch: Watch = UNWATCHED,
    ) -> HeadOutputs:
        """`Arithmetic.attention`; of many queries one K/V head at a time, and in place.

        Scores of R query heads are then held at a time, not of all H.
        """
        tokens, heads, head_dim = q.shape
        if tokens <= self.query_block or watch.hooked or sight.per_head:
            return super().attention(q, k, v, sight, scale, watch)
        groups = k.shape[1]
        share = heads // groups
        q = (q * scale).reshape(tokens, groups, share, head_dim)
        keys = np.ascontiguousarray(k.transpose(1, 2, 0))  # (G, d, S)
        step = 2 * self.query_block  # of one K/V head's scores, as much room as two blocks of all
        room = np.empty(step * share * len(k), self.dtype)
        ones = np.ones(len(k), self.dtype)
        out = np.empty((tokens, groups, share, head_dim), self.dtype)
        for start in range(0, tokens, step):
            queries = slice(start, min(start + step, tokens))
            seen = sight.keys_for(queries, watch)
            hidden = sight.hidden(queries, seen)
            patterns = []
            for g in range(groups):
                pattern, by_head = scores_in(room, q[queries, g], keys[g, :, seen])
                self.masked(by_head, hidden)
                pattern -= largest_in(pattern)
                np.exp(pattern, out=pattern)
                total = pattern @ ones[seen, None]  # (T*R, 1)
                z = (pattern @ v[seen, g]).reshape(-1, share, head_dim)
                np.divide(z, total.reshape(-1, share, 1), out=out[queries, g])
                if watch.observe is not None:
                    pattern /= total
                    patterns.append(by_head.copy())
            if watch.observe is not None:
                watch.observe(sight.query_positions[queries], np.concatenate(patterns))
        return out.reshape(tokens, heads, head_dim)

"""Caches whose keys and values are projected to a lower rank (figure 6 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from ..arithmetic.rounded import round_to_bfloat16
from ..arrays import Array, NewKeys, NewValues, Positions, Stream, to_numpy
from ..caches import Full
from ..errors import CacheError
from ..layers import Layer
from ..memory import Attended
from ..numbers import whole
from ..projection import kv_from_residual

BASES = {
    "text": ("attn.hook_rot_k", "attn.hook_v"),
    "weights": ("attn.hook_k", "attn.hook_v"),
}
"""What is projected, by where the directions come from; see `Truncated`."""


@dataclass(eq=False, repr=False)
class Truncated(Full):
    """Keep every K and V, each head's projected to `rank` of its d directions.

    The paper does not say where its directions come from. Here they are the leading singular
    vectors of

    * ``text``: the keys (with their positions) and the values of the first call's tokens, which
      lose as little of these in the sum of squares as any `rank` directions do;
    * ``weights``: the rows of W_k and W_v that make the head's keys, before their positions, and
      its values.

    Parameters
    ----------
    weights : Weights
    rank : int
        Directions, up to d, that a head keeps.
    basis : {"text", "weights"}
    rounded : bool
        Whether K, V, directions and every product are rounded to bfloat16, as they are where that
        is the type of everything.
    """

    policy = "truncated"  # it is not registered: an experiment's, not a user's

    rank: int = 1
    basis: str = "text"
    rounded: bool = False

    def check(self) -> None:
        whole("rank", self.rank, 1, self._row[1], CacheError)
        if self.basis not in BASES:
            raise CacheError(f"basis {self.basis!r:.40}; choose {', '.join(BASES)}")

    def reset(self) -> None:
        super().reset()
        self._directions: dict[tuple[int, str], np.ndarray] = {}  # (G, d, rank)

    def fork(self) -> Self:
        """An independent copy, which keeps the directions that were found."""
        twin = super().fork()
        twin._directions = dict(self._directions)
        return twin

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        hook = partial(self._projected, layer)
        k, v = kv_from_residual(residual, positions, layer, hook)
        return super().update(layer, positions, residual, k, v)

    def _projected(self, layer: Layer, name: str, value: Array) -> Array:
        """The hook: keys or values ``(T, G, d)`` in the directions that are kept."""
        if name not in BASES[self.basis]:
            return value
        key = (layer.index, name)
        if key not in self._directions:
            found = self._found(layer, name, value)
            self._directions[key] = self._settled(found[:, :, : self.rank])
        directions = self._directions[key]
        rows = self._settled(to_numpy(value).swapaxes(0, 1))  # (G, T, d)
        inner = self._settled(rows @ directions)  # (G, T, rank)
        outer = self._settled(inner @ directions.swapaxes(1, 2))
        return self._xp.asarray(np.ascontiguousarray(outer.swapaxes(0, 1)))

    def _found(self, layer: Layer, name: str, value: Array) -> np.ndarray:
        """All directions of each head, leading ones first: orthonormal columns, ``(G, d, d)``."""
        if self.basis == "text":
            rows = to_numpy(value, dtype=np.float64).swapaxes(0, 1)  # (G, T, d)
            columns = rows.swapaxes(1, 2)  # (G, d, T)
        else:
            matrix = layer.k_proj if name == "attn.hook_k" else layer.v_proj
            columns = to_numpy(matrix, dtype=np.float64).reshape(*self._row, -1)  # (G, d, D)
        return np.linalg.svd(columns @ columns.swapaxes(1, 2))[0]

    def _settled(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float32)
        if self.rounded:
            round_to_bfloat16(x)
        return x

"""Ordinary floating point: sums in whatever order the BLAS takes them."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..arrays import Array, HeadOutputs, Inputs, Keys, NewKeys, Outputs, Pattern, Queries, Scores
from .base import Arithmetic, Matrix, Prepared


class Float32(Arithmetic):
    """Single precision through BLAS.

    The same call on the same shapes gives the same bits. Another shape may take another kernel
    and add in another order: a row of a batch can differ from the same row alone. The distance of
    an n-term product to the true value obeys Higham's bound, ``gamma_n * (|x| @ |w|.T)`` with
    ``gamma_n = n u / (1 - n u)`` and ``u = 2**-24`` (Accuracy and Stability of Numerical
    Algorithms, 2nd ed., equation 3.7).
    """

    name = "float32"
    precision = "float32"  # the type of every number; a subclass may have another name

    def __init__(self, xp: ModuleType = np) -> None:
        self.xp = xp
        self.dtype = getattr(xp, self.precision)
        self.wide = self.dtype

    def widen(self, x: Array) -> Array:
        return x

    def narrow(self, x: Array) -> Array:
        return x

    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        return self.xp.asarray(matrix, dtype=self.dtype)

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        return x @ weight.T

    def mean_square(self, x: Array) -> Array:
        return (self.xp.vecdot(x, x) / x.shape[-1])[..., None]

    def settle(self, x: NewKeys) -> NewKeys:
        return x

    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        tokens, heads, head_dim = q.shape
        q = self.xp.permute_dims(q * scale, (1, 2, 0))
        q = self.xp.reshape(q, (k.shape[1], -1, head_dim, tokens))  # (G, R, d, T)
        k = self.xp.permute_dims(k, (1, 0, 2))[:, None, ...]  # (G, 1, S, d): R heads read one
        scores = k @ q  # few queries: (S, d) @ (d, T) is twice as fast as (T, d) @ (d, S)
        return self.xp.reshape(self.xp.permute_dims(scores, (0, 1, 3, 2)), (heads, tokens, -1))

    def softmax(self, scores: Scores) -> Pattern:
        scores = scores - self.xp.max(scores, axis=-1, keepdims=True)
        pattern = self.xp.exp(scores)
        pattern /= self.xp.sum(pattern, axis=-1, keepdims=True)
        return pattern

    def values(self, v: Prepared) -> Prepared:
        return v

    def weighted_sum(self, pattern: Pattern, v: Prepared) -> HeadOutputs:
        heads, tokens, length = pattern.shape
        groups, head_dim = v.shape[1:]
        pattern = self.xp.reshape(pattern, (groups, -1, length))
        z = pattern @ self.xp.permute_dims(v, (1, 0, 2))  # (G, R*T, d)
        z = self.xp.reshape(z, (heads, tokens, head_dim))
        return self.xp.permute_dims(z, (1, 0, 2))

    def exp(self, x: Array) -> Array:
        with np.errstate(over="ignore", under="ignore"):
            return self.xp.exp(x)

    def sin(self, x: Array) -> Array:
        return self.xp.astype(self.xp.sin(self.xp.astype(x, self.xp.float64)), self.wide)

    def cos(self, x: Array) -> Array:
        return self.xp.astype(self.xp.cos(self.xp.astype(x, self.xp.float64)), self.wide)


class Float64(Float32):
    """Double precision through BLAS: a float64 run is how a bug is told from rounding."""

    name = "float64"
    precision = "float64"
    itemsize = 8
    weights_in_float32 = False

"""What the decoder asks of an arithmetic: how sums are taken, and what is made of them.

Only an operation that adds across elements (a matrix product, a mean of squares, a softmax
denominator, an attention-weighted sum) can depend on the order in which it adds. Those are abstract
methods of `Arithmetic`. Below them stand the parts of a block that are made of them
(RMSNorm, rotation, gate, attention), once for every arithmetic; compiled kernels override a part
whole, with the same bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ..arrays import (
    Array,
    DType,
    Features,
    HeadOutputs,
    Heads,
    Inputs,
    Keys,
    NewKeys,
    Outputs,
    Pattern,
    Queries,
    Scores,
    Stream,
    TokenIds,
    Turns,
    Values,
    shaped,
)
from .sight import UNWATCHED, Sight, Watch

Matrix = Any
"""A ``(N, K)`` matrix as an arithmetic prepared it, once, at load."""

Prepared = Any
"""Values ``(S, G, d)`` as `Arithmetic.values` prepared them, for all queries."""


def silu_argument(x: Array) -> Array:
    """y of SiLU, x / (1 + exp(-y)): x itself."""
    return x


def gelu_argument(x: Array) -> Array:
    """y of the tanh approximation of GELU: 0.5 x (1 + tanh(y / 2)) is x / (1 + exp(-y)).

    Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2.
    """
    return (x * x * 0.044715 + 1.0) * x * math.sqrt(8 / math.pi)


ACTIVATIONS = {"silu": silu_argument, "gelu_pytorch_tanh": gelu_argument}
"""By the names of Hugging Face's ``hidden_act``."""


class Arithmetic(ABC):
    """How sums are taken. Letters as in `minikv.config`; R = H // G.

    Attributes
    ----------
    name : str
        What ``--arithmetic`` calls it.
    xp : module
        Array namespace (the array API standard), NumPy by default.
    dtype, wide : dtype
        Of the stream, K, V and logits; and of the values between roundings.
    itemsize : int
        Bytes of a number in `dtype`.
    weights_in_float32 : bool
        Whether tensors are rounded to float32 before `weight` and the others prepare them.
    looks_up_in_matrices : bool
        Whether `lookup` reads the rows of what `weight` made: a tied matrix is then held once.
    query_block : int
        Queries that attention takes at a time: memory then does not grow with T * S.
    """

    name: ClassVar[str]
    itemsize: ClassVar[int] = 4
    weights_in_float32: ClassVar[bool] = True
    looks_up_in_matrices: ClassVar[bool] = False
    query_block: int = 32
    xp: ModuleType
    dtype: DType
    wide: DType

    # Sums

    @abstractmethod
    def widen(self, x: Array) -> Array:
        """`x` in `wide`, to compute with; may be `x` itself."""

    @abstractmethod
    def narrow(self, x: Array) -> Array:
        """`x` rounded to `dtype`, to keep; may be `x` itself."""

    @abstractmethod
    def weight(self, matrix: np.ndarray, name: str, tied: bool = False) -> Matrix:
        """Prepare a ``(N, K)`` matrix once, at load; `name` is used in error messages.

        `tied` says that the matrix is the embedding too, whose rows are also read as they are.
        """

    @abstractmethod
    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        """x @ matrix.T, ``(T, K) -> (T, N)``, in `dtype`."""

    def linears(self, x: Inputs, *weights: Matrix) -> tuple[Outputs, ...]:
        """`linear` with each of several matrices, for which the rows may be prepared once."""
        return tuple(self.linear(x, weight) for weight in weights)

    def lookup(self, table: Array, ids: TokenIds) -> Stream:
        """Rows of the embedding, ``(V, D), (T,) int -> (T, D)``."""
        return self.xp.take(table, self.xp.asarray(ids), axis=0)

    @abstractmethod
    def mean_square(self, x: Array) -> Array:
        """``(..., K) -> (..., 1)``: the mean of x**2 over the last axis, in `wide`."""

    @abstractmethod
    def settle(self, x: NewKeys) -> NewKeys:
        """``(T, G, d) -> (T, G, d)``: move K or V to the grid that attention sums on.

        Idempotent, row by row (a row is one token and head), and what the cache then stores.
        """

    @abstractmethod
    def scores(self, q: Queries, k: Keys, scale: float) -> Scores:
        """scale * q . k, ``(H, T, S)``, in `wide`."""

    @abstractmethod
    def softmax(self, scores: Scores) -> Pattern:
        """``(H, T, S) -> (H, T, S)`` over the last axis, in `wide`; a score of -inf weighs 0."""

    @abstractmethod
    def values(self, v: Values) -> Prepared:
        """V as `weighted_sum` reads it: prepared once, for all runs of `query_block` queries.

        ``values[i:j, ...]`` of the result is tokens i to j. Preparing twice changes nothing.
        """

    @abstractmethod
    def weighted_sum(self, pattern: Pattern, v: Prepared) -> HeadOutputs:
        """sum_s pattern * v, ``(H, T, S), (S, G, d) -> (T, H, d)``, in `dtype`."""

    @abstractmethod
    def exp(self, x: Array) -> Array:
        """Elementwise exp in `wide`; overflows to inf and underflows to 0 silently."""

    @abstractmethod
    def sin(self, x: Array) -> Array:
        """Elementwise sine in `wide`, for RoPE's table."""

    @abstractmethod
    def cos(self, x: Array) -> Array:
        """Elementwise cosine in `wide`, for RoPE's table."""

    # What is made of them

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """x / sqrt(mean(x**2) + eps) * weight over the last axis.

        Zhang and Sennrich 2019, arXiv 1910.07467, equation 4.
        """
        x = self.widen(x)
        root = self.xp.sqrt(self.mean_square(x) + eps)
        out = x / root
        out *= weight
        return self.narrow(out)

    @shaped
    def rope(self, x: Heads, cos: Turns, sin: Turns) -> Heads:
        """Turn pair (i, i + d/2) of each head by its angle (rotate-half form).

        `cos` holds each cosine twice, (c, c), and `sin` each sine with both signs, (-s, s). Su et
        al. 2021, arXiv 2104.09864, equation 34.
        """
        half = x.shape[-1] // 2
        x = self.widen(x)
        turned = self.xp.concat([x[..., half:], x[..., :half]], axis=-1)
        turned *= sin
        turned += x * cos
        return self.narrow(turned)

    @shaped
    def gated(self, gate: Features, up: Features, activation: str) -> Features:
        """activation(gate) * up, where the activation is x / (1 + exp(-y)) with y of x.

        Shazeer 2020, arXiv 2002.05202, equations 5 and 6.
        """
        x = self.widen(gate)
        denominator = self.exp(-ACTIVATIONS[activation](x))
        denominator += 1.0
        out = x / denominator
        out *= up
        return self.narrow(out)

    @shaped
    def attention(
        self,
        q: Queries,
        k: Keys,
        v: Values,
        sight: Sight,
        scale: float,
        watch: Watch = UNWATCHED,
    ) -> HeadOutputs:
        """softmax(scale * q k^T + mask) v, with each K/V head shared by R query heads.

        Vaswani et al. 2017, arXiv 1706.03762, equation 1; Ainslie et al. 2023, arXiv 2305.13245.

        Parameters
        ----------
        q : (T, H, d)
        k, v : (S, G, d)
        sight : Sight
            Which keys each query sees.
        scale : float
            Of the scores; usually ``1 / sqrt(d)``.
        watch : Watch
            Who looks at scores and weights. Hooks see all queries at once, whatever `query_block`.

        Returns
        -------
        (T, H, d)
        """
        tokens = q.shape[0]
        keys = self.widen(k)
        values = self.values(v)
        step = tokens if watch.hooked else self.query_block
        outputs = []
        for start in range(0, tokens, step):
            queries = slice(start, min(start + step, tokens))
            seen = sight.keys_for(queries, watch)
            scores = self.scores(q[queries, ...], keys[seen, ...], scale)  # (H, T, S)
            scores = self.masked(scores, sight.hidden(queries, seen))
            if watch.scores is not None:
                scores = watch.scores(scores)
            pattern = self.softmax(scores)  # (H, T, S)
            if watch.pattern is not None:
                pattern = watch.pattern(pattern)
            if watch.observe is not None:
                watch.observe(sight.query_positions[queries], pattern)
            outputs.append(self.weighted_sum(pattern, values[seen, ...]))  # (T, H, d)
        return outputs[0] if len(outputs) == 1 else self.xp.concat(outputs, axis=0)

    def masked(self, scores: Scores, hidden: np.ndarray | None) -> Scores:
        """Scores ``(H, T, S)``, of -inf where `hidden` is true.

        `hidden` is ``(T, S)``, or ``(G, T, S)`` where each K/V head holds tokens of its own: it is
        then repeated for the R query heads of each.
        """
        if hidden is None:
            return scores
        if hidden.ndim == 3:
            hidden = hidden.repeat(scores.shape[0] // hidden.shape[0], axis=0)
        minus_infinity = self.xp.asarray(-math.inf, dtype=scores.dtype)
        return self.xp.where(self.xp.asarray(hidden), minus_infinity, scores)

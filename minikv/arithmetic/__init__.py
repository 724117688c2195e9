"""How sums are taken: the one interface behind which every cross-element sum lives.

Only an operation that adds across elements (a matrix product, a mean of squares, a softmax
denominator, an attention-weighted sum) can depend on the order in which it adds. Those are the
methods of `Arithmetic`. Everything else in the decoder is elementwise and cannot tell which
arithmetic it runs on.

==========  ==============================================================================
`Float32`   BLAS. Fast; promises only that the same call gives the same bits.
`Float64`   The same in double precision: tells a bug from rounding.
`Exact`     Sums of integers held in float64: the same bits in any order, on any machine.
==========  ==============================================================================
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from .exact import Exact
from .float32 import Float32, Float64

Array = Any  # an array of the namespace `Arithmetic.xp`; numpy.ndarray by default


class Arithmetic(Protocol):
    """What the decoder asks of an arithmetic. Letters as in `minikv.config`; R = H // G.

    Attributes
    ----------
    name : str
        ``"float32"``, ``"float64"`` or ``"exact"``.
    xp : module
        Array namespace (the array API standard), NumPy by default.
    dtype, wide : dtype
        Of the stream, K, V and logits; and of the values between roundings.

    Notes
    -----
    An arithmetic with kernels of its own may also have ``rms_norm``, ``rope``, ``gated`` and
    ``attention``: `minikv.layers` asks it first, and the bits must be those of its own code.
    """

    name: str
    xp: ModuleType
    dtype: Any
    wide: Any

    def widen(self, x: Array) -> Array:
        """`x` in `wide`, to compute with; may be `x` itself."""

    def narrow(self, x: Array) -> Array:
        """`x` rounded to `dtype`, to keep; may be `x` itself."""

    def weight(self, matrix: np.ndarray, name: str) -> Any:
        """Prepare a ``(N, K)`` matrix once, at load; `name` is used in error messages.

        A matrix that can be written to is the arithmetic's own, to keep and to change.

        ``weight[i:j, ...]`` of the result is rows i to j, prepared.
        """

    def linear(self, x: Array, weight: Any) -> Array:
        """``(T, K) -> (T, N)``: x @ matrix.T, in `dtype`."""

    def mean_square(self, x: Array) -> Array:
        """``(..., K) -> (..., 1)``: the mean of x**2 over the last axis, in `wide`."""

    def settle(self, x: Array) -> Array:
        """``(T, G, d) -> (T, G, d)``: move K or V to the grid that attention sums on.

        Idempotent, row by row (a row is one token and head), and what the cache then stores.
        """

    def scores(self, q: Array, k: Array, scale: float) -> Array:
        """``(T, H, d), (S, G, d) -> (H, T, S)``: scale * q . k, in `wide`."""

    def softmax(self, scores: Array) -> Array:
        """``(H, T, S) -> (H, T, S)`` over the last axis, in `wide`; a score of -inf weighs 0."""

    def values(self, v: Array) -> Any:
        """V as `weighted_sum` reads it: prepared once for many blocks of queries.

        ``values[i:j, ...]`` of the result is tokens i to j. Preparing twice changes nothing.
        """

    def weighted_sum(self, pattern: Array, v: Any) -> Array:
        """``(H, T, S), (S, G, d) -> (T, H, d)``: sum_s pattern * v, in `dtype`."""

    def exp(self, x: Array) -> Array:
        """Elementwise exp in `wide`; overflows to inf and underflows to 0 silently."""

    def sin(self, x: Array) -> Array:
        """Elementwise sine in `wide`, for RoPE's table."""

    def cos(self, x: Array) -> Array:
        """Elementwise cosine in `wide`, for RoPE's table."""


def get_arithmetic(name: str | Arithmetic, context: int = 2**17, xp: ModuleType = np) -> Arithmetic:
    """Make an arithmetic by name.

    Parameters
    ----------
    name : {"float32", "float64", "exact"} or Arithmetic
        An `Arithmetic` passes through unchanged.
    context : int
        The longest sum over tokens, `ModelConfig.max_position_embeddings`.
    xp : module
        Array namespace.

    Examples
    --------
    >>> get_arithmetic("float64").name
    'float64'
    """
    if not isinstance(name, str):
        return name
    if name == "exact":
        return Exact(context=context, xp=xp)
    if name == "float32":
        return Float32(xp)
    if name == "float64":
        return Float64(xp)
    raise InputError(f"arithmetic {name!r} is unknown; choose 'float32', 'float64' or 'exact'")


__all__ = ["Arithmetic", "Array", "Exact", "Float32", "Float64", "get_arithmetic"]

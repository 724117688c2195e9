"""How sums are taken: the one interface behind which every cross-element sum lives.

==============  ==========================================================================
`Float32`       BLAS. Fast; promises only that the same call gives the same bits.
`Float64`       The same in double precision: tells a bug from rounding.
`Exact`         Sums of integers held in float64: the same bits in any order, on any machine.
`NumpyExact`    The same bits on NumPy, faster, and refusing what is not finite.
`Bfloat16`      Every single operation rounded to bfloat16, in a fixed order; slow.
`Float16`       The same in float16.
==============  ==========================================================================

What the decoder asks of them stands in `minikv.arithmetic.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from ..errors import InputError
from .base import ACTIVATIONS, Arithmetic, Matrix
from .exact import Exact
from .float32 import Float32, Float64
from .numpy_exact import NumpyExact
from .numpy_float32 import NumpyFloat32
from .rounded import Bfloat16, Float16
from .sight import UNWATCHED, Sight, Watch


def _float32(xp: ModuleType, context: int) -> Arithmetic:
    return NumpyFloat32() if xp is np else Float32(xp)


def _exact(xp: ModuleType, context: int) -> Arithmetic:
    return NumpyExact(context) if xp is np else Exact(context, xp)


ARITHMETICS: dict[str, Callable[[ModuleType, int], Arithmetic]] = {
    Float32.name: _float32,
    Float64.name: lambda xp, context: Float64(xp),
    Exact.name: _exact,
    Bfloat16.name: lambda xp, context: Bfloat16(xp),
    Float16.name: lambda xp, context: Float16(xp),
}
"""What ``arithmetic=`` and ``--arithmetic`` take: how to make each on an array library, for texts
of so many tokens."""


def get_arithmetic(name: str | Arithmetic, context: int = 2**17, xp: ModuleType = np) -> Arithmetic:
    """Make an arithmetic by name.

    Parameters
    ----------
    name : {"float32", "float64", "exact", "bfloat16", "float16"} or Arithmetic
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
    if isinstance(name, Arithmetic):
        return name
    if name not in ARITHMETICS:
        known = ", ".join(map(repr, ARITHMETICS))
        raise InputError(f"arithmetic {name!r} is unknown; choose one of {known}")
    return ARITHMETICS[name](xp, context)


__all__ = [
    "ACTIVATIONS",
    "ARITHMETICS",
    "UNWATCHED",
    "Arithmetic",
    "Bfloat16",
    "Exact",
    "Float16",
    "Float32",
    "Float64",
    "Matrix",
    "NumpyExact",
    "NumpyFloat32",
    "Sight",
    "Watch",
    "get_arithmetic",
]

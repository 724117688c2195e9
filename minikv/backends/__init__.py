"""Where the arrays live and who computes on them; the decoder and the theorems are the same.

====================  =======================================================  ===============
`numpy`               the default
`numba`               NumPy, with compiled kernels for `exact` and `float32`   extra `numba`
`torch`               PyTorch, through array-api-compat                        extra `torch`
`cupy`                NVIDIA GPUs, through array-api-compat                    extra `cupy`
`jax`                 without caches, which assign in place                    extra `jax`
`array_api_strict`    refuses what the standard lacks: a test, not for use     extra `test`
====================  =======================================================  ===============

Under ``exact`` all of them give the same bits, but for numbers below 2**-126 on CuPy and JAX, which
make them 0; see docs/backends.md.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic, get_arithmetic
from ..errors import InputError, MissingExtraError, require_extra

_MODULES = {  # what to import, and the extra that brings it
    "torch": ("array_api_compat.torch", "torch"),
    "cupy": ("array_api_compat.cupy", "cupy"),
    "jax": ("jax.numpy", "jax"),
    "array_api_strict": ("array_api_strict", "test"),
}
BACKENDS = ("numpy", "numba", *_MODULES)
"""Names that ``backend=`` and ``--backend`` take."""


def get_backend(
    name: str, arithmetic: str | Arithmetic = "float32", context: int = 2**17
) -> Arithmetic:
    """An arithmetic on a backend.

    Parameters
    ----------
    name : {"numpy", "numba", "torch", "cupy", "jax", "array_api_strict"}
    arithmetic : {"float32", "float64", "exact"} or Arithmetic
        An `Arithmetic` passes through unchanged: it has its arrays chosen already.
    context : int
        The longest sum over tokens.

    Raises
    ------
    InputError
        If the backend or the arithmetic is unknown, if CuPy cannot use a GPU, or if JAX, in use
        before, divides inexactly.
    MissingExtraError
        If the backend's package is not installed. Only `numba` does without, on NumPy, and says
        so on standard error.

    Examples
    --------
    >>> get_backend("numpy", "exact").name
    'exact'
    """
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if name == "numba" and arithmetic in ("exact", "float32"):
        return _numba(str(arithmetic), context)
    xp = np
    if name in _MODULES:
        module, extra = _MODULES[name]
        xp = require_extra(module, extra, f"backend {name!r}")
        if name == "torch":  # weights are views of a file; nothing ever writes to them
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if name == "cupy":
            _find_gpu(xp)
        if name == "jax":
            _start_jax(xp, arithmetic == "exact")
    return get_arithmetic(arithmetic, context, xp)


def _find_gpu(xp: Any) -> None:
    """A sum and a product, which ask for a device, its driver, CUDA's compiler and cuBLAS."""
    kept = os.environ.get("CUPY_CACHE_DIR", os.path.expanduser("~/.cupy/kernel_cache"))
    try:
        x = xp.empty((1, 1))
        if not os.path.isdir(kept) or not os.listdir(kept):
            print("minikv: compiling CuPy's kernels, once: they are kept on disk", file=sys.stderr)
        float(((x + 1.0) @ x)[0, 0])
    except Exception as error:  # whatever CUDA may raise
        found = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"backend 'cupy' got {found}; expected an NVIDIA GPU with a driver for "
            "CUDA 12. On a CPU choose 'numba' or 'numpy'"
        ) from None


def _start_jax(xp: Any, exact: bool) -> None:
    """With 64 bits, and without the pass that turns ``x / 3.0`` into ``x * (1 / 3.0)``."""
    require_extra("jax", "jax", "").config.update("jax_enable_x64", True)
    given, flag = os.environ.get("XLA_FLAGS", ""), "--xla_disable_hlo_passes=algsimp"
    os.environ["XLA_FLAGS"] = f"{given} {flag}"
    x = np.arange(1.0, 100.0)
    divides = np.array_equal(xp.asarray(x) / 3.0, x / 3.0)  # and XLA has read its flags
    os.environ["XLA_FLAGS"] = given
    if exact and not divides:
        raise InputError(
            "JAX was in use before minikv and divides inexactly, expected correctly "
            f"rounded quotients: start Python with XLA_FLAGS={flag}"
        )


def to_numpy(array: Any, dtype: Any = None) -> np.ndarray:
    """An array of any library in NumPy; the one place where numbers leave a device."""
    for leave in ("get", "cpu"):  # CuPy's name for it, and PyTorch's
        if hasattr(array, leave):
            array = getattr(array, leave)()
    return np.asarray(array, dtype=dtype)


def _numba(arithmetic: str, context: int) -> Arithmetic:
    """`NumbaExact` or `NumbaFloat32`, or NumPy's arithmetic where Numba cannot be used."""
    try:
        require_extra("numba", "numba", "backend 'numba'")
        if arithmetic == "float32":
            from .numba32 import NumbaFloat32

            return NumbaFloat32()
        from .numba import NumbaExact

        return NumbaExact(context)
    except Exception as error:  # whatever a compiler may raise
        what = "" if isinstance(error, MissingExtraError) else f"Numba's {type(error).__name__}: "
        reason = what + str(error)
    instead = "slower, with the same bits" if arithmetic == "exact" else "whose bits vary by batch"
    print(
        f"minikv: {' '.join(reason.split())[:300]}; NumPy takes its place, {instead}",
        file=sys.stderr,
    )
    return get_arithmetic(arithmetic, context)

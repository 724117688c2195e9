"""An arithmetic on a backend, by name."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from ..arithmetic import Arithmetic, get_arithmetic
from ..errors import InputError, MissingExtraError
from ..extras import require_extra


def get_backend(
    name: str, arithmetic: str | Arithmetic = "float32", context: int = 2**17
) -> Arithmetic:
    """An arithmetic on a backend.

    Parameters
    ----------
    name : {"numpy", "numba", "torch", "cupy", "jax", "array_api_strict"}
    arithmetic : {"float32", "float64", "exact", "bfloat16", "float16"} or Arithmetic
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
    if name not in _MAKERS:
        raise InputError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if isinstance(arithmetic, Arithmetic):
        return arithmetic
    return _MAKERS[name](arithmetic, context)


def keep_large_blocks() -> None:
    """Keep glibc from giving memory back between layers.

    It gives a large block back to the system when it is freed, to fault it in anew page by page at
    the next layer, until one of its size has been freed once (mallopt(3), M_MMAP_THRESHOLD: blocks
    of up to 32 MiB). So one of nearly that size is made, and freed. Elsewhere this does nothing.
    """
    np.empty(31 << 20, dtype=np.uint8)  # bytes


def _numpy(arithmetic: str, context: int) -> Arithmetic:
    return get_arithmetic(arithmetic, context)


def _numba(arithmetic: str, context: int) -> Arithmetic:
    """An arithmetic in compiled kernels, or NumPy's where Numba has none or cannot be used."""
    if arithmetic not in _COMPILED:
        return get_arithmetic(arithmetic, context)
    try:
        require_extra("numba", "numba", "backend 'numba'")
        with _threads_that_wait_briefly():
            return _COMPILED[arithmetic](context)
    except MissingExtraError as error:
        reason = str(error)
    except Exception as error:  # whatever a compiler may raise
        reason = f"Numba's {type(error).__name__}: {error}"
    instead = "slower, with the same bits"
    if arithmetic == "float32":
        instead = "whose bits vary by batch"
    reason = " ".join(reason.split())[:300]
    print(f"minikv: {reason}; NumPy takes its place, {instead}", file=sys.stderr)
    return get_arithmetic(arithmetic, context)


def _compiled_float32(context: int) -> Arithmetic:
    from .numba_float32 import NumbaFloat32

    return NumbaFloat32()


def _compiled_exact(context: int) -> Arithmetic:
    from .numba_exact import NumbaExact

    return NumbaExact(context)


def _compiled_bfloat16(context: int) -> Arithmetic:
    from .numba_rounded import NumbaBfloat16

    return NumbaBfloat16()


def _compiled_float16(context: int) -> Arithmetic:
    from .numba_rounded import NumbaFloat16

    return NumbaFloat16()


_COMPILED: dict[str, Callable[[int], Arithmetic]] = {
    "float32": _compiled_float32,
    "exact": _compiled_exact,
    "bfloat16": _compiled_bfloat16,
    "float16": _compiled_float16,
}
"""The arithmetics that Numba has kernels for, each imported when it is asked for."""


@contextmanager
def _threads_that_wait_briefly() -> Iterator[None]:
    """How OpenMP's threads wait, which it reads when Numba first starts them.

    They shall wait awake between the products of a step, since waking them takes as long as a small
    one, but not for longer: they would spin against those of NumPy's BLAS, on the same cores, and
    be far slower. What the user has set stays.
    """
    settings = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}
    if settings.keys() & os.environ.keys():
        yield
        return
    os.environ.update(settings)
    try:
        import numba

        numba.get_num_threads()
        yield
    finally:
        for name in settings:
            del os.environ[name]


def _torch(arithmetic: str, context: int) -> Arithmetic:
    xp = require_extra("array_api_compat.torch", "torch", "backend 'torch'")
    # Weights are views of a file, and nothing ever writes to them.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    return get_arithmetic(arithmetic, context, xp)


def _cupy(arithmetic: str, context: int) -> Arithmetic:
    xp = require_extra("array_api_compat.cupy", "cupy", "backend 'cupy'")
    _find_gpu(xp)
    return get_arithmetic(arithmetic, context, xp)


def _jax(arithmetic: str, context: int) -> Arithmetic:
    xp = require_extra("jax.numpy", "jax", "backend 'jax'")
    _start_jax(xp, arithmetic == "exact")
    return get_arithmetic(arithmetic, context, xp)


def _array_api_strict(arithmetic: str, context: int) -> Arithmetic:
    xp = require_extra("array_api_strict", "test", "backend 'array_api_strict'")
    return get_arithmetic(arithmetic, context, xp)


def _find_gpu(xp: ModuleType) -> None:
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
            f"backend 'cupy' got {found}; expected an NVIDIA GPU with a driver for CUDA 12. On a "
            "CPU choose 'numba' or 'numpy'"
        ) from None


def _start_jax(xp: ModuleType, exact: bool) -> None:
    """With 64 bits, and without the pass that turns ``x / 3.0`` into ``x * (1 / 3.0)``."""
    jax = require_extra("jax", "jax", "backend 'jax'")
    jax.config.update("jax_enable_x64", True)
    given = os.environ.get("XLA_FLAGS", "")
    flag = "--xla_disable_hlo_passes=algsimp"
    os.environ["XLA_FLAGS"] = f"{given} {flag}"
    x = np.arange(1.0, 100.0)
    # XLA reads its flags when it first compiles, which is here, unless JAX was in use before.
    divides = np.array_equal(xp.asarray(x) / 3.0, x / 3.0)
    os.environ["XLA_FLAGS"] = given
    if exact and not divides:
        raise InputError(
            "JAX was in use before minikv and divides inexactly, expected correctly rounded "
            f"quotients: start Python with XLA_FLAGS={flag}"
        )


_MAKERS: dict[str, Callable[[str, int], Arithmetic]] = {
    "numpy": _numpy,
    "numba": _numba,
    "torch": _torch,
    "cupy": _cupy,
    "jax": _jax,
    "array_api_strict": _array_api_strict,
}
BACKENDS = tuple(_MAKERS)
"""Names that ``backend=`` and ``--backend`` take."""

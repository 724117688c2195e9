"""The backend for an arithmetic whose bits no backend changes: compiled kernels where they are."""

from __future__ import annotations

from importlib.util import find_spec

from ..arithmetic import Arithmetic

ANYWHERE = ("exact", "bfloat16", "float16")
"""What has the same bits on Numba as on NumPy; float32 has others there, and float64 no kernels."""


def fastest(arithmetic: str | Arithmetic) -> str:
    """``"numba"`` where it is installed and has the bits of NumPy, else ``"numpy"``.

    Examples
    --------
    >>> fastest("float32")
    'numpy'
    """
    if arithmetic in ANYWHERE and find_spec("numba"):
        return "numba"
    return "numpy"

"""Where the arrays live and who computes on them; the decoder and the theorems are the same.

====================  =======================================================  ===============
`numpy`               the default
`numba`               NumPy, with compiled kernels for all but `float64`       extra `numba`
`torch`               PyTorch, through array-api-compat                        extra `torch`
`cupy`                NVIDIA GPUs, through array-api-compat                    extra `cupy`
`jax`                 without caches, which assign in place                    extra `jax`
`array_api_strict`    refuses what the standard lacks: a test, not for use     extra `test`
====================  =======================================================  ===============

Under ``exact`` all of them give the same bits, but for numbers below 2**-126 on CuPy and JAX, which
make them 0; see docs/backends.md.
"""

from .choose import BACKENDS, get_backend, keep_large_blocks

__all__ = ["BACKENDS", "get_backend", "keep_large_blocks"]

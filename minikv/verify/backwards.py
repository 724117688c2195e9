"""Float32 whose rows depend on their company, where BLAS happens to keep them alike."""

from __future__ import annotations

import functools

import numpy as np

from ..arithmetic import Float32, Matrix
from ..arrays import Inputs, Outputs

KEPT_ROWS = "this BLAS gave a row the same bits in any call, so several rows were summed backwards"


class Backwards(Float32):
    """The sums of a lone row as BLAS takes them, those of several from the last term."""

    def linear(self, x: Inputs, weight: Matrix) -> Outputs:
        if len(x) == 1:
            return super().linear(x, weight)
        return x[:, ::-1] @ weight[:, ::-1].T


BACKWARDS = Backwards()


@functools.cache
def blas_keeps_rows() -> bool:
    """Whether NumPy's BLAS gave each row of some products the bits that it has alone."""
    rng = np.random.default_rng(0)
    for inputs in (24, 576, 1536):
        x = rng.standard_normal((16, inputs), dtype=np.float32)
        weight = rng.standard_normal((96, inputs), dtype=np.float32)
        together = x @ weight.T
        alone = np.concatenate([x[row : row + 1] @ weight.T for row in range(len(x))])
        if not np.array_equal(together, alone):
            return False
    return True

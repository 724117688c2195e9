"""Ranks that ``torchrun`` started, which speak torch.distributed's gloo (extra ``torch``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import numpy as np

from ..extras import require_extra
from .comm import Comm, Reduction


def started_by_torchrun(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes a ``torchrun`` started; 0 for none.

    Examples
    --------
    >>> started_by_torchrun({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"})
    4
    >>> started_by_torchrun({"WORLD_SIZE": "4"})
    0
    """
    told = environment.get("WORLD_SIZE", "")
    if "TORCHELASTIC_RUN_ID" not in environment or not told.isdecimal():
        return 0
    return int(told)


class Gloo(Comm):
    """A rank of torch.distributed's default group.

    Raises
    ------
    MissingExtraError
        If PyTorch is not installed.
    """

    def __init__(self) -> None:
        self._torch = require_extra("torch", "torch", "a run under torchrun")
        self._dist = require_extra("torch.distributed", "torch", "a run under torchrun")
        self._dist.init_process_group("gloo")
        self.rank = self._dist.get_rank()
        self.size = self._dist.get_world_size()

    def reduce(self, array: np.ndarray, reduction: Reduction) -> np.ndarray:
        self._count(array, 2)
        out = np.ascontiguousarray(array).copy()
        operations = self._dist.ReduceOp
        operation = operations.MAX if reduction is np.maximum else operations.SUM
        self._dist.all_reduce(self._torch.from_numpy(out), op=operation)
        return out

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Parts of one length are gathered, padded with zeros, and cut again."""
        shapes: list[tuple[int, ...]] = [()] * self.size
        self._dist.all_gather_object(shapes, array.shape)  # small, and among ranks of one torchrun
        counts = [int(np.prod(shape)) for shape in shapes]
        padded = np.zeros(max(counts), array.dtype)
        padded[: array.size] = array.reshape(-1)
        parts = [np.empty_like(padded) for _ in shapes]
        self._dist.all_gather(
            [self._torch.from_numpy(part) for part in parts], self._torch.from_numpy(padded)
        )
        self._count(padded, 1 + self.size)
        return [
            part[:count].reshape(shape)
            for part, count, shape in zip(parts, counts, shapes, strict=True)
        ]

    def fail(self, message: str) -> None:
        """Say why; torchrun ends the others when this process has ended."""
        print("minikv: error:", message, file=sys.stderr, flush=True)
        os._exit(2)

    def close(self) -> None:
        self._dist.destroy_process_group()

    def _count(self, array: np.ndarray, times: int) -> None:
        self.calls += 1
        self.wire += array.nbytes * times

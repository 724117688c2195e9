"""Ranks that ``mpirun`` started, which speak MPI (extra ``mpi``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import numpy as np

from ..extras import require_extra
from .comm import Comm, Reduction

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # as Open MPI and MPICH say it to their processes


def started_by_mpi(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes an ``mpirun`` started; 0 for none.

    Examples
    --------
    >>> started_by_mpi({"PMI_SIZE": "4"}), started_by_mpi({})
    (4, 0)
    """
    told = [environment[name] for name in _SIZES if environment.get(name, "").isdecimal()]
    return int(told[0]) if told else 0


class Mpi(Comm):
    """A rank of MPI's world.

    Raises
    ------
    MissingExtraError
        If mpi4py, or a library of MPI, is not installed.
    """

    def __init__(self) -> None:
        mpi = require_extra("mpi4py.MPI", "mpi", "a run under mpirun")
        self._mpi = mpi
        self._world = mpi.COMM_WORLD
        self.rank = self._world.Get_rank()
        self.size = self._world.Get_size()

    def reduce(self, array: np.ndarray, reduction: Reduction) -> np.ndarray:
        self._count(array, 2)
        out = np.ascontiguousarray(array).copy()
        operation = self._mpi.MAX if reduction is np.maximum else self._mpi.SUM
        self._world.Allreduce(self._mpi.IN_PLACE, out, op=operation)
        return out

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        shapes = self._world.allgather(array.shape)  # small, and among ranks of one mpirun
        counts = [int(np.prod(shape)) for shape in shapes]
        whole = np.empty(sum(counts), array.dtype)
        self._world.Allgatherv(np.ascontiguousarray(array), [whole, counts])
        self._count(array, 1)
        self.wire += whole.nbytes
        edges = np.cumsum(counts)[:-1]
        parts = np.split(whole, edges)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def fail(self, message: str) -> None:
        """End all processes: MPI has no other way to reach ranks that wait."""
        print("minikv: error:", message, file=sys.stderr, flush=True)
        self._world.Abort(2)

    def close(self) -> None:
        self._world.Barrier()  # so that nobody's end is taken for a failure

    def _count(self, array: np.ndarray, times: int) -> None:
        self.calls += 1
        self.wire += array.nbytes * times

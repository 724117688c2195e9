"""How the ranks of a run speak with each other: three calls, which all of them make together."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod

import numpy as np

from ..errors import RankError

Reduction = np.ufunc
"""``np.maximum`` or ``np.add``."""


class Comm(ABC):
    """One rank's way to the others.

    Each call is made by all ranks, the same calls in the same order, with arrays of one type: who
    stays away holds up all others. `max` and `sum` are elementwise, over arrays of one shape, in
    whatever order an engine likes: every rank gets the same bits where order cannot change them.

    Attributes
    ----------
    rank, size : int
        Which rank this is, from 0, and how many there are.
    calls, wire : int
        Calls made so far, and the bytes that this rank has sent and received for them.
    """

    rank: int
    size: int
    calls: int = 0
    wire: int = 0

    @abstractmethod
    def reduce(self, array: np.ndarray, reduction: Reduction) -> np.ndarray:
        """An array from all ranks' arrays, elementwise; a new one."""

    @abstractmethod
    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """The arrays of all ranks, by rank; their shapes may differ."""

    def max(self, array: np.ndarray) -> np.ndarray:
        """The largest number of all ranks, elementwise; none may be NaN."""
        return self.reduce(array, np.maximum)

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum over all ranks, elementwise."""
        return self.reduce(array, np.add)

    @abstractmethod
    def fail(self, message: str) -> None:
        """Tell the others why this rank ends; their calls then raise `RankError`."""

    @abstractmethod
    def close(self) -> None:
        """Leave, after the last call."""

    # What is made of these

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """What each rank says, by rank."""
        return [part.tobytes() for part in self.gather(np.frombuffer(data, np.uint8))]

    def from_first(self, value: object) -> object:
        """What rank 0 gives, on every rank: anything that JSON can hold."""
        said = b"" if self.rank else json.dumps(value).encode()
        return json.loads(self.gather_bytes(said)[0])

    def expect_alike(self, what: str, value: str) -> None:
        """Raise `RankError`, on every rank, unless all ranks say the same."""
        values = [said.decode() for said in self.gather_bytes(value.encode())]
        for rank, said in enumerate(values):
            if said != values[0]:
                raise RankError(
                    f"rank {rank} has {what} {said:.80}, rank 0 has {values[0]:.80}; "
                    "all ranks must have the same"
                )

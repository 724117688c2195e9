"""Ranks as threads of one process, which reduce in any order: for tests, and for theorem T12."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import reduce as folded
from typing import TypeVar

import numpy as np

from ..errors import RankError
from .comm import Comm, Reduction

Result = TypeVar("Result")


class Table:
    """Where the arrays of all ranks meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places: list[np.ndarray] = [np.empty(0)] * size
        self.everybody = threading.Barrier(size)
        self.reason = ""

    def put(self, rank: int, array: np.ndarray) -> list[np.ndarray]:
        """Lay down one rank's array, and see all."""
        self.places[rank] = array.copy()
        self.wait()
        seen = list(self.places)
        self.wait()  # before anybody lays down the next one
        return seen

    def wait(self) -> None:
        """Until all ranks are here; `RankError` where one will not come."""
        try:
            self.everybody.wait()
        except threading.BrokenBarrierError:
            raise RankError(self.reason or "another rank has ended") from None


class Threads(Comm):
    """A rank that is a thread.

    Parameters
    ----------
    rank : int
    table : Table
    seed : int, optional
        Each rank then reduces in random orders and trees of its own: what a network may do, and
        worse.
    """

    def __init__(self, rank: int, table: Table, seed: int | None = None) -> None:
        self.rank = rank
        self.size = table.size
        self._table = table
        self._rng = None
        if seed is not None:
            self._rng = np.random.default_rng([seed, rank])

    def reduce(self, array: np.ndarray, reduction: Reduction) -> np.ndarray:
        self._count(array, 2)
        parts = self._table.put(self.rank, array)
        if self._rng is None:
            return folded(reduction, parts[1:], parts[0].copy())
        return any_tree(parts, reduction, self._rng)

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        self._count(array, self.size)
        return self._table.put(self.rank, array)

    def fail(self, message: str) -> None:
        self._table.reason = message
        self._table.everybody.abort()

    def close(self) -> None:
        pass

    def _count(self, array: np.ndarray, times: int) -> None:
        self.calls += 1
        self.wire += array.nbytes * times


def any_tree(parts: list[np.ndarray], reduction: Reduction, rng: np.random.Generator) -> np.ndarray:
    """The arrays reduced in a random order and association."""
    left = list(parts)
    while len(left) > 1:
        first, second = rng.permutation(len(left))[:2].tolist()
        joined = reduction(left[first], left[second])
        left = [part for place, part in enumerate(left) if place not in (first, second)]
        left.append(joined)
    return left[0].copy()


class Waiting(BaseException):
    """A rank has laid down its array, and not all have; no work is to catch this."""


class Turns(Table):
    """Where the arrays of ranks meet that run one after the other, again and again.

    A rank runs until it needs what others have not laid down yet, and the next one begins. Once all
    have laid down their arrays, all begin anew, and are given what is known by now.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.known: list[list[np.ndarray]] = []
        self.asked = 0  # by the rank whose turn it is

    def put(self, rank: int, array: np.ndarray) -> list[np.ndarray]:
        """What all laid down at this point of an earlier turn."""
        if self.asked == len(self.known):
            self.places[rank] = array.copy()
            raise Waiting
        seen = self.known[self.asked]
        self.asked += 1
        return list(seen)


def run_turns(size: int, work: Callable[[Comm], Result], seed: int | None = None) -> list[Result]:
    """`run_threads` without threads: the same results, in time that grows with reductions squared.

    ``work`` is run many times over, and has to do the same each time.

    Examples
    --------
    >>> run_turns(3, lambda comm: int(comm.sum(np.array([comm.rank]))[0]))
    [3, 3, 3]
    """
    table = Turns(size)
    while True:
        results: dict[int, Result] = {}
        for rank in range(size):
            table.asked = 0
            with contextlib.suppress(Waiting):
                results[rank] = work(Threads(rank, table, seed))
        if len(results) == size:
            return [results[rank] for rank in range(size)]
        if results:
            raise RankError("another rank has ended")
        table.known.append(table.places)
        table.places = [np.empty(0)] * size


def has_threads() -> bool:
    """Whether this Python can start a thread; one in WebAssembly cannot."""
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def run_threads(size: int, work: Callable[[Comm], Result], seed: int | None = None) -> list[Result]:
    """Run ``work(comm)`` on each of some ranks, as threads; their results, by rank.

    Where one raises, all end, and its error is raised here. Where there are no threads, ranks take
    turns (`run_turns`).

    Examples
    --------
    >>> run_threads(3, lambda comm: int(comm.sum(np.array([comm.rank]))[0]))
    [3, 3, 3]
    """
    if not has_threads():
        return run_turns(size, work, seed)
    table = Table(size)
    results: dict[int, Result] = {}
    errors: list[Exception] = []

    def run(comm: Threads) -> None:
        try:
            results[comm.rank] = work(comm)
        except Exception as error:
            errors.append(error)
            comm.fail(f"rank {comm.rank}: {error}")

    threads = [
        threading.Thread(target=run, args=(Threads(rank, table, seed),)) for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]  # the others follow from it
    return [results[rank] for rank in range(size)]

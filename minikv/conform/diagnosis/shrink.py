"""The smallest text and chunking that still show a bug of a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from ..adapter import Subject, WrongShapeError
from ..axes.cached import pairs_of
from ..bench import Bench, Pair
from ..verdict import Case

MOST_RUNS = 150
FIRST_CHUNKS = 6


def smallest(bench: Bench, runs: int = MOST_RUNS) -> Case | None:
    """Shorten text and chunks of the failing chunking that fails first, as long as it fails."""
    search = Search(bench, runs)
    start = search.earliest()
    if start is None:
        return None
    return search.shrunk(search.cut_short(start))


class Search:
    """A number of runs, and what fails in them."""

    def __init__(self, bench: Bench, runs: int) -> None:
        self.bench = bench
        self.left = runs

    def bad_rows(self, case: Case) -> np.ndarray:
        """Rows that are no rounding; none where the runs are used up."""
        self.left -= 1
        if self.left < 0 or not case.ids:
            return np.zeros(1, dtype=bool)
        way = partial(Subject.chunked, ids=case.ids, chunks=case.chunks)
        try:
            return self.bench.differs(Pair("a smaller case", case.ids, way))
        except WrongShapeError:
            return np.ones(1, dtype=bool)

    def fails(self, case: Case) -> bool:
        """Whether a case shows the bug."""
        return bool(self.bad_rows(case).any())

    def earliest(self) -> Case | None:
        """Of all chunkings, the one whose first bad row comes first."""
        best: tuple[int, Case] | None = None
        for chunks, pair in pairs_of(self.bench):
            case = Case(pair.ids, tuple(chunks))
            rows = self.bad_rows(case)
            first = int(np.argmax(rows))
            if rows.any() and (best is None or first < best[0]):
                best = (first, case)
        self.left = max(self.left, MOST_RUNS // 2)
        return best[1] if best else None

    def cut_short(self, case: Case) -> Case:
        """Without what comes after the first bad row."""
        end = int(np.argmax(self.bad_rows(case))) + 1
        chunks = []
        start = 0
        for count in case.chunks:
            if start < end:
                chunks.append(min(count, end - start))
            start += count
        shorter = Case(case.ids[:end], tuple(chunks))
        return shorter if self.fails(shorter) else case

    def shrunk(self, case: Case) -> Case:
        """Nothing smaller that is tried fails any more."""
        changed = True
        while changed and self.left > 0:
            smaller = next(filter(self.fails, smaller_cases(case)), None)
            changed = smaller is not None
            case = smaller or case
        for place in range(len(case.ids)):
            zero = Case((*case.ids[:place], 0, *case.ids[place + 1 :]), case.chunks)
            if case.ids[place] and self.fails(zero):
                case = zero
        return case


def smaller_cases(case: Case) -> Iterator[Case]:
    """The case with two chunks joined, or with tokens of a chunk left out."""
    chunks = case.chunks
    for place in range(min(len(chunks) - 1, FIRST_CHUNKS)):
        joined = chunks[place] + chunks[place + 1]
        yield Case(case.ids, (*chunks[:place], joined, *chunks[place + 2 :]))
    for place in range(min(len(chunks), FIRST_CHUNKS)):
        for count in sorted({chunks[place] // 2, 1}, reverse=True):
            if 0 < count <= chunks[place] and len(case.ids) > count:
                yield without(case, place, count)


def without(case: Case, place: int, count: int) -> Case:
    """The case without the first `count` tokens of a chunk.

    Examples
    --------
    >>> str(without(Case((7, 8, 9), (2, 1)), 0, 1))
    'ids [8, 9] in chunks of 1+1'
    """
    chunks = case.chunks
    start = sum(chunks[:place])
    left: Sequence[int] = (chunks[place] - count,) if chunks[place] > count else ()
    ids = (*case.ids[:start], *case.ids[start + count :])
    return Case(ids, (*chunks[:place], *left, *chunks[place + 1 :]))

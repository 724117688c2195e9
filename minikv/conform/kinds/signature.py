"""What a bug does, measured: the features by which its kind is guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial

import numpy as np

from ..adapter import Subject, WrongShapeError
from ..bench import Bench, Pair
from ..rule import TWIN, row_differences
from ..schedules import beginning, schedules
from ..verdict import Verdict, Word

Rows = np.ndarray


class Signature:
    """Features of a target with a bug; each is measured when it is first asked for.

    Differences are taken in the wide twin where there is one.
    """

    def __init__(self, bench: Bench, verdicts: Mapping[str, Verdict]) -> None:
        self.bench = bench
        self.verdicts = verdicts
        self.ids = bench.texts[0]
        self.length = len(self.ids)
        self.judge = bench.wide or bench.subject
        self.window = int(bench.subject.fact("window", 0))
        self.sink = int(bench.subject.fact("sink", 0))

    def bug(self, axis: str) -> bool:
        """Whether an axis found one."""
        return axis in self.verdicts and self.verdicts[axis].word is Word.BUG

    def said(self, axis: str, words: str) -> bool:
        """Whether an axis found a bug and its evidence has these words."""
        return self.bug(axis) and words in self.verdicts[axis].evidence

    def cached(self, ids: tuple[int, ...], chunks: list[int]) -> Rows:
        """Rows on a cache."""
        return self.judge.chunked(ids, chunks)

    def differences(self, ids: tuple[int, ...], chunks: list[int]) -> Rows:
        """Of rows on a cache from those without; ``(T,)``."""
        return row_differences(self.judge.whole(ids), self.cached(ids, chunks))

    def bad(self, ids: tuple[int, ...], chunks: list[int]) -> Rows:
        """Rows on a cache that are no rounding; ``(T,)`` bool."""
        way = partial(Subject.chunked, ids=ids, chunks=chunks)
        try:
            return self.bench.differs(Pair("a chunking", ids, way))
        except WrongShapeError:
            return np.ones(len(ids), dtype=bool)

    @property
    def zero(self) -> float:
        """Differences below are none."""
        if self.bench.wide is not None:
            return TWIN
        return float(2 * self.bench.spread(self.ids).max() + 8 * self.bench.subject.unit)

    @cached_property
    def first_bad(self) -> dict[str, int]:
        """First bad row of every chunking that has one."""
        found = {}
        for name, chunks in schedules(self.length, self.bench.random, False).items():
            rows = self.bad(self.ids, chunks)
            if rows.any():
                found[name] = int(np.argmax(rows))
        return found

    @cached_property
    def one_row(self) -> bool:
        """Whether the first token alone is bad."""
        return bool(self.bad(self.ids[:1], [1]).any())

    @cached_property
    def row_0_of_4(self) -> bool:
        """Whether the first row of a chunk of four is bad."""
        return bool(self.bad(self.ids[:4], [4])[0])

    @cached_property
    def one_token_text(self) -> bool:
        """Whether a text of one token, repeated, is bad: weights of attention hardly matter."""
        same = (self.ids[0],) * 12
        return any(self.bad(same, chunks).any() for chunks in ([6, *[1] * 6], [6, 6]))

    @cached_property
    def absolute(self) -> bool:
        """Whether rows of one token, repeated, differ: positions are absolute."""
        rows = self.judge.whole((self.ids[0],) * 12)
        same = row_differences(np.repeat(rows[:1], 11, axis=0), rows[1:])
        return bool((same > max(self.zero, TWIN)).any())

    @cached_property
    def halves(self) -> Rows:
        """Differences of two halves."""
        return self.differences(self.ids, beginning(self.length, self.length // 2))

    @cached_property
    def ones(self) -> Rows:
        """Differences of one token a call, up to 36."""
        return self.differences(self.ids, beginning(self.length, *[1] * 36))

    @cached_property
    def largest(self) -> float:
        """The largest of both."""
        return float(max(self.halves[self.length // 2 :].max(), self.ones.max()))

    @cached_property
    def growth(self) -> list[float]:
        """Difference of the first step behind texts of 1, 2, 4, 8, ... tokens."""
        found = []
        for before in (1, 2, 4, 8, 16, 32, 48):
            if before < self.length:
                each = [
                    self.differences(ids[: before + 1], [before, 1])[before]
                    for ids in self.bench.texts
                ]
                found.append(float(np.mean(each)))
        return found

    def decay(self, start: int, stop: int) -> float:
        """Mean difference of some rows of one token a call."""
        rows = self.ones[start : min(stop, self.length)]
        return float(rows.mean()) if len(rows) else 0.0

    @cached_property
    def late(self) -> bool:
        """Whether the first step behind 1, 2 and 4 tokens is good."""
        return all(value < self.zero for value in self.growth[:3])

    @cached_property
    def near(self) -> np.ndarray:
        """By how many positions each step looks moved, in a text of one token, repeated."""
        length = min(self.length, 24)
        same = (self.ids[1],) * length
        whole = self.judge.whole(same)
        rows = self.cached(same, beginning(length, 12, *[1] * 12))
        found = []
        for place in range(12, length - 1):
            beside = [
                row_differences(whole[other : other + 1], rows[place : place + 1])[0]
                for other in range(length)
            ]
            found.append(int(np.argmin(beside)) - place)
        return np.array(found)

    @cached_property
    def blind(self) -> int:
        """How many rows on a cache do not see a token that uncached ones see."""
        ids = self.ids[:24]
        chunks = beginning(len(ids), 12, *[1] * 12)
        count = 0
        for token in (0, 3, 8, 11, 13, 14, 16, 20):
            if token >= len(ids):
                continue
            other = (*ids[:token], self.bench.other(ids[token]), *ids[token + 1 :])
            seen = row_differences(self.judge.whole(ids), self.judge.whole(other))
            kept = row_differences(self.cached(ids, chunks), self.cached(other, chunks))
            count += int(((seen > 8 * self.bench.subject.unit) & (kept == 0)).sum())
        return count

    @cached_property
    def first_32_good(self) -> bool:
        """Whether a text of 64 has the rows of its first 32 tokens."""
        ids = self.ids[:64]
        way: Callable[[Subject], Rows] = lambda subject: subject.whole(ids[:32])  # noqa: E731  # one of several
        return not self.bench.differs(Pair("32 of 64", ids, way)).any()

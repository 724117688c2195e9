"""A target on the bench: texts, twins, yardsticks, and the two ways to judge a relation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..errors import InputError
from ..progress import Progress, silent
from . import rule
from .adapter import Ids, Subject, WrongShapeError
from .verdict import Verdict, Word

Way = Callable[[Subject], np.ndarray]
"""A way to get rows of logits from a target, or from its twin."""

NATURAL = (
    "The lighthouse stood where the river met the sea. Every evening an old man climbed its "
    "stairs, counted the ships, and wrote their number into a book that nobody had ever read."
)
MORE_POWER = "an adapter with wide(), the same weights in float64"
QUICK_PAIRS = 4  # of an axis, those with the largest differences, run on the twin in quick mode
NOISE_SEEDS = 3


@dataclass(frozen=True)
class Settings:
    """How thoroughly a target is tested.

    Attributes
    ----------
    effort : {"quick", "default", "thorough"}
        Quick: shorter texts, fewer chunkings, the twin on the worst pairs only.
    twin : {"wide", "noise", "none"}
        The best twin that may be used.
    length : int or None
        Tokens of a text.
    shrink : bool
        Whether to look for the smallest case of a bug of the cache.
    kinds : bool
        Whether to look for the kind of a bug.
    """

    effort: str = "default"
    seed: int = 0
    twin: str = "wide"
    length: int | None = None
    shrink: bool = True
    kinds: bool = True
    progress: Progress = field(default=silent, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.effort not in ("quick", "default", "thorough"):
            raise InputError(
                f"effort is {self.effort!r:.80}, choose 'quick', 'default' or 'thorough'"
            )
        if self.twin not in ("wide", "noise", "none"):
            raise InputError(f"twin is {self.twin!r:.80}, choose 'wide', 'noise' or 'none'")

    @property
    def tokens(self) -> int:
        """Length of a text, if the target's context is not shorter."""
        return self.length or {"quick": 40, "default": 80, "thorough": 160}[self.effort]


@dataclass(frozen=True)
class Pair:
    """A numeric relation: rows of a text in one uncached call, and the same rows another way.

    Attributes
    ----------
    ids : tuple of int
        The text.
    got : callable
        Gives the rows from `start` on, or some of them.
    shift : int
        How far this way may have moved all positions; see `minikv.conform.rule.twin_limit`.
    expected : callable or None
        In place of the uncached call.
    """

    label: str
    ids: tuple[int, ...]
    got: Way
    start: int = 0
    shift: int = 0
    expected: Way | None = None


@dataclass(frozen=True)
class Change:
    """An exact relation: rows before and after a change that they must not see, of one shape.

    Attributes
    ----------
    ids : tuple of int
        The text whose rows they are, from `start` on.
    """

    label: str
    ids: tuple[int, ...]
    before: Way
    after: Way
    start: int = 0


@dataclass(frozen=True)
class Seen:
    """A pair that was run on the target."""

    pair: Pair
    expected: np.ndarray
    got: np.ndarray
    differences: np.ndarray  # (T,)

    @property
    def worst(self) -> float:
        """The largest difference."""
        return float(self.differences.max(initial=0.0))


@dataclass(frozen=True)
class Judged:
    """A pair, decided row by row."""

    seen: Seen
    bad: np.ndarray  # (T,) bool
    undecided: np.ndarray  # (T,) bool
    sight: float  # no difference below this would show
    wide: float | None = None  # largest difference in the wide twin, where it was used
    errors: tuple[np.ndarray, np.ndarray] | None = None  # of both ways, against float64


class Bench:
    """A target, its twins, the texts it is tested on, and what has been measured."""

    def __init__(self, target: object, settings: Settings | None = None) -> None:
        self.subject = Subject(target)
        self.settings = settings or Settings()
        self.random = np.random.default_rng(self.settings.seed)
        limit = self.subject.fact("max_length") or self.settings.tokens
        self.length = min(self.settings.tokens, limit)
        if self.length < 2:
            raise InputError(f"texts have {self.length} tokens, expected 2 or more")
        self.twin_fault = ""
        self.measured: dict[str, float] = {}
        self._spreads: dict[tuple[int, ...], np.ndarray] = {}
        self._noises: dict[tuple[int, ...], np.ndarray] = {}

    def shortened(self, length: int) -> Bench:
        """The same target and twin on texts of so many tokens."""
        bench = Bench(self.subject.target, replace(self.settings, length=length))
        bench.wide = self.wide
        return bench

    # what there is

    @cached_property
    def texts(self) -> list[tuple[int, ...]]:
        """Two texts of `length` tokens: random ones, and natural text where there is an encoder."""
        first, second = (
            tuple(map(int, self.random.integers(0, self.subject.vocab, self.length)))
            for _ in range(2)
        )
        if self.subject.can("encode"):
            written = list(map(int, self.subject.target.encode(NATURAL)))
            repeated = written * (1 + self.length // max(len(written), 1))
            second = tuple(repeated[: self.length]) or second
        return [first, second]

    def other(self, token: int) -> int:
        """Another token."""
        vocab = self.subject.vocab
        return (token + 1 + int(self.random.integers(0, vocab - 1))) % vocab

    def changed(self, ids: Ids, start: int = 0) -> tuple[int, ...]:
        """A text whose tokens from `start` on are others."""
        return (*ids[:start], *(self.other(token) for token in ids[start:]))

    @cached_property
    def wide(self) -> Subject | None:
        """The twin in float64."""
        if self.settings.twin != "wide" or not self.subject.can("wide"):
            return None
        return Subject(self.subject.target.wide())

    @cached_property
    def nudged(self) -> list[Subject]:
        """Twins with moved weights."""
        if self.settings.twin == "none" or not self.subject.can("nudged"):
            return []
        return [Subject(self.subject.target.nudged(seed)) for seed in range(NOISE_SEEDS)]

    # what is measured

    def whole(self, ids: Ids, wide: bool = False) -> np.ndarray:
        """Uncached logits of a text, run once; of the wide twin, if asked for."""
        subject = self.wide if wide else self.subject
        assert subject is not None
        return subject.whole(ids)

    @cached_property
    def twin_spread(self) -> float:
        """The largest difference between the wide twin's rows of a text and of its beginnings."""
        found = []
        for ids in self.texts if self.wide is not None else ():
            for cut in self.cuts(len(ids)):
                same = self.whole(ids, wide=True)[:cut]
                found.append(rule.row_differences(same, self.whole(ids[:cut], wide=True)).max())
        finite = [value for value in found if np.isfinite(value)]
        return float(max(finite, default=0.0))

    def cuts(self, length: int) -> list[int]:
        """Where texts are cut to measure a spread; texts of 1 to 3 tokens take other kernels."""
        wanted = {1, 2, 3, 8, 17, length // 2, 3 * length // 4, length - 1}
        if self.settings.effort == "quick":
            wanted = {1, 2, length // 2, length - 1}
        return sorted(cut for cut in wanted if 0 < cut < length)

    def spread(self, ids: tuple[int, ...]) -> np.ndarray:
        """The largest difference of each row over texts cut at other lengths; ``(T,)``."""
        if ids not in self._spreads:
            rows = np.zeros(len(ids))
            for cut in self.cuts(len(ids)):
                same = rule.row_differences(self.whole(ids)[:cut], self.whole(ids[:cut]))
                rows[:cut] = np.maximum(rows[:cut], same)
            self._spreads[ids] = rows
        return self._spreads[ids]

    def noise(self, ids: tuple[int, ...]) -> np.ndarray:
        """The largest difference of each row that moved weights make; ``(T,)``."""
        if ids not in self._noises:
            found = [rule.row_differences(self.whole(ids), one.logits(ids)) for one in self.nudged]
            self._noises[ids] = np.max(found, axis=0)
        return self._noises[ids]

    def bounds(self, ids: tuple[int, ...]) -> rule.Bounds:
        """What differences of a text's rows mean without a wide twin."""
        if self.nudged:
            return rule.bounds_of_noise(self.noise(ids), self.subject.unit)
        return rule.bounds_of_spread(self.spread(ids), self.subject.unit)

    # how it is judged

    def see(self, pair: Pair) -> Seen:
        """Run a pair on the target."""
        got = pair.got(self.subject)
        if pair.expected is not None:
            expected = pair.expected(self.subject)
        else:
            expected = self.whole(pair.ids)[pair.start : pair.start + len(got)]
        if expected.shape != got.shape:
            raise WrongShapeError(f"{pair.label}: shape {got.shape}, expected {expected.shape}")
        return Seen(pair, expected, got, rule.row_differences(expected, got))

    def judge(self, seen: Seen) -> Judged:
        """Decide each row: by the wide twin where there is one that can be believed."""
        judged = self._judge_wide(seen) if self.wide is not None else None
        return judged or self._judge_native(seen)

    def _judge_wide(self, seen: Seen) -> Judged | None:
        """By the twin; None where it is not finite and the target is."""
        pair = seen.pair
        assert self.wide is not None
        got = pair.got(self.wide)
        if pair.expected is not None:
            expected = pair.expected(self.wide)
        else:
            expected = self.whole(pair.ids, wide=True)[pair.start : pair.start + len(got)]
        if np.isfinite(seen.got).all() and not np.isfinite(got).all():
            said = f"{pair.label}: not finite in float64, where {self._dtype} is"
            self.twin_fault = self.twin_fault or said
            return None
        differences = rule.row_differences(expected, got)
        limit = rule.twin_limit(self.twin_spread, pair.shift)
        errors = tuple(rule.row_differences(expected, rows) for rows in (seen.expected, seen.got))
        self._note("largest difference in the twin", float(differences.max()))
        return Judged(
            seen,
            differences > limit,
            np.zeros(len(differences), dtype=bool),
            limit,
            float(differences.max()),
            (errors[0], errors[1]),
        )

    def _judge_native(self, seen: Seen) -> Judged:
        """By what is known of the target's own rounding."""
        start = seen.pair.start
        rows = slice(start, start + len(seen.got))
        bounds = self.bounds(seen.pair.ids)
        rounding = bounds.rounding[rows]
        self._note(
            "largest share of the rounding bound", float((seen.differences / rounding).max())
        )
        bad = seen.differences > bounds.bug
        equal = seen.differences == 0
        undecided = ~bad & ~equal & ((seen.differences > rounding) | ~bounds.has_power[rows])
        return Judged(seen, bad, undecided, float(rounding.max()))

    @property
    def _dtype(self) -> str:
        return self.subject.dtype

    def _note(self, what: str, value: float) -> None:
        self.measured[what] = max(value, self.measured.get(what, 0.0))

    def differs(self, pair: Pair) -> np.ndarray:
        """Rows of a pair whose difference is no rounding; ``(T,)`` bool."""
        judged = self.judge(self.see(pair))
        return judged.bad | judged.undecided

    # the two kinds of relations

    def numeric(self, axis: str, pairs: Iterable[Pair]) -> Verdict:
        """One verdict for relations whose shapes differ."""
        try:
            seen = [self.see(pair) for pair in pairs]
        except WrongShapeError as error:
            return Verdict(axis, Word.BUG, evidence=str(error))
        seen.sort(key=lambda one: -one.worst)
        judged = [self.judge(one) for one in self._for_the_twin(seen)]
        units = seen[0].worst / self.subject.unit
        self._note("largest native difference", seen[0].worst)
        worst = next((one for one in judged if one.bad.any()), None)
        if worst is not None:
            return self._bug(axis, worst, units)
        narrow = self._narrow(judged)
        if narrow:
            return Verdict(axis, Word.BUG, units, f"{seen[0].pair.label}: {narrow}")
        if all(np.array_equal(one.expected, one.got) for one in seen):
            return Verdict(axis, Word.SAME, evidence=_ways(len(seen)))
        if any(one.undecided.any() for one in judged):
            return self._undecided(axis, judged, units)
        ties = sum(rule.near_ties(one.expected, one.got) for one in seen)
        evidence = self._evidence(judged, len(seen))
        word = Word.ROUNDING
        if ties:
            word = Word.TIE
            evidence = f"{ties} best tokens changed, by margins below the difference; {evidence}"
        sight = max(one.sight for one in judged)
        return Verdict(axis, word, units, evidence, effect=seen[0].worst, sight=sight)

    def _for_the_twin(self, seen: Sequence[Seen]) -> Sequence[Seen]:
        """What is judged: all, or the worst."""
        if self.wide is None or self.settings.effort != "quick":
            return seen
        return seen[:QUICK_PAIRS]

    def _bug(self, axis: str, judged: Judged, units: float) -> Verdict:
        row = judged.seen.pair.start + int(np.argmax(judged.bad))
        if judged.wide is not None:
            why = f"{judged.wide:.1e} of a row in float64, where rounding is below "
            why += f"{judged.sight:.1e}"
        else:
            why = f"{judged.seen.worst:.1e} of a row, far above its rounding"
        effect = judged.seen.worst if judged.wide is None else judged.wide
        said = f"{judged.seen.pair.label}: {why}"
        return Verdict(axis, Word.BUG, units, said, row, effect=effect, sight=judged.sight)

    def _narrow(self, judged: Sequence[Judged]) -> str:
        """What one of two ways does in the narrow dtype only, if anything.

        Where values choose experts, a choice that rounding turns makes an error of its own.
        """
        errors = [one.errors for one in judged if one.errors is not None]
        if not errors or self.subject.fact("data_dependent"):
            return ""
        before = max(rule.pooled([pair[0] for pair in errors]), self.subject.unit / 2)
        after = max(rule.pooled([pair[1] for pair in errors]), self.subject.unit / 2)
        self._note("ratio of errors", max(after / before, before / after))
        most = rule.error_ratio(self.subject.unit)
        if after > most * before:
            return f"its error against float64 is {after / before:.0f} times the uncached one's"
        if before > most * after:
            return f"the uncached error against float64 is {before / after:.0f} times this one's"
        return ""

    def _undecided(self, axis: str, judged: Sequence[Judged], units: float) -> Verdict:
        doubtful = next(one for one in judged if one.undecided.any())
        row = doubtful.seen.pair.start + int(np.argmax(doubtful.undecided))
        yardstick = self.bounds(doubtful.seen.pair.ids).yardstick
        evidence = (
            f"{doubtful.seen.pair.label}: {doubtful.seen.worst:.1e} of a row; by {yardstick}, a "
            f"fault below {doubtful.sight:.1e} would not show in {self._dtype}"
        )
        return Verdict(
            axis,
            Word.UNDECIDED,
            units,
            evidence,
            row,
            decide=MORE_POWER,
            effect=doubtful.seen.worst,
            sight=doubtful.sight,
        )

    def _evidence(self, judged: Sequence[Judged], count: int) -> str:
        """On what "rounding" rests."""
        wide = [one.wide for one in judged if one.wide is not None]
        if len(wide) == len(judged):
            which = f"the worst {len(judged)} of {_ways(count)}"
            if len(judged) == count:
                which = _ways(count)
            return f"{which}: at most {max(wide):.1e} of a row in float64"
        sight = max(one.sight for one in judged)
        return f"{_ways(count)}; a fault below {sight:.1e} of a row would not show"

    def exact(self, axis: str, changes: Iterable[Change]) -> Verdict:
        """One verdict for relations whose shapes are equal: not a bit may move.

        Where shapes depend on values, as in a mixture of experts, bits may, and the relations are
        judged as numeric ones.
        """
        if self.subject.fact("data_dependent"):
            return self.numeric(
                axis,
                [
                    Pair(one.label, one.ids, one.after, one.start, expected=one.before)
                    for one in changes
                ],
            )
        count = 0
        for change in changes:
            count += 1
            before = change.before(self.subject)
            after = change.after(self.subject)
            if before.shape != after.shape:
                said = f"{change.label}: shape {after.shape}, expected {before.shape}"
                return Verdict(axis, Word.BUG, evidence=said)
            equal = (before == after) | (np.isnan(before) & np.isnan(after))
            if not equal.all():
                row = change.start + int(np.argmax(~equal.all(axis=-1)))
                units = rule.row_differences(before, after).max() / self.subject.unit
                said = f"{change.label}: bits changed that must not see it"
                return Verdict(axis, Word.BUG, float(units), said, row)
        return Verdict(axis, Word.SAME, evidence=f"no bit moved in {count} changes")

    def both(self, axis: str, changes: Iterable[Change], pairs: Iterable[Pair]) -> Verdict:
        """Exact relations first, numeric ones if they hold."""
        leak = self.exact(axis, changes)
        if leak.word is Word.BUG:
            return leak
        return self.numeric(axis, pairs)


def _ways(count: int) -> str:
    return "1 way" if count == 1 else f"{count} ways"

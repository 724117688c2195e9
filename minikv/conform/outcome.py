"""What all axes found."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass, field

from .rule import UNITS
from .verdict import Verdict, Word

WIDTH = 110


@dataclass(frozen=True)
class Report:
    """What all axes found.

    Attributes
    ----------
    twin : str
        By what numeric relations were decided.
    seed : int
        Of the texts.
    measured : dict
        The largest differences and ratios of the run.
    """

    target: str
    dtype: str
    twin: str
    verdicts: tuple[Verdict, ...]
    seconds: float
    seed: int
    measured: dict[str, float]
    environment: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, axis: str) -> Verdict:
        """The verdict of an axis."""
        return next(verdict for verdict in self.verdicts if verdict.axis == axis)

    @property
    def bugs(self) -> list[Verdict]:
        """Axes that found one."""
        return [verdict for verdict in self.verdicts if verdict.word is Word.BUG]

    @property
    def exit_code(self) -> int:
        """1 if there is a bug, 2 if an axis is undecided or none could be tested, else 0.

        The same call is always tested; it does not count where more was asked for.
        """
        words = {verdict.word for verdict in self.verdicts}
        asked = self.verdicts[1:] or self.verdicts
        if Word.BUG in words:
            return 1
        if Word.UNDECIDED in words or all(one.word is Word.NOT_TESTED for one in asked):
            return 2
        return 0

    @property
    def not_tested(self) -> dict[str, list[str]]:
        """The axes that were not tested, by reason."""
        reasons: dict[str, list[str]] = {}
        for verdict in self.verdicts:
            if verdict.word is Word.NOT_TESTED:
                reasons.setdefault(verdict.evidence, []).append(verdict.axis)
        return reasons

    def __str__(self) -> str:
        return self.fitted(WIDTH)

    def fitted(self, width: int) -> str:
        """What is printed, in lines of a width."""
        unit = f"1 u = {UNITS[self.dtype]:.1e} of a row"
        heading = f"{self.target}, {self.dtype} ({unit}); twin: {self.twin}"
        lines = _wrapped(heading, 4, width)
        for verdict in self.verdicts:
            if verdict.word is not Word.NOT_TESTED:
                lines += _lines(verdict, width)
        lines += _not_tested(self, width)
        return "\n".join([*lines, self.summary])

    @property
    def summary(self) -> str:
        """How many axes have which verdict."""
        counts = Counter(str(verdict.word) for verdict in self.verdicts)
        told = ", ".join(f"{count} {word}" for word, count in counts.items())
        return f"{told}; {self.seconds:.1f} s, exit code {self.exit_code}"


def _lines(verdict: Verdict, width: int) -> list[str]:
    """An axis in a line, and a bug's details below it."""
    units = f"{verdict.units:.3g} u" if verdict.units else ""
    first, *more = filter(None, [*verdict.details(), " "])
    lines = _wrapped(f"{verdict.axis:20} {verdict.word:10} {units:>10}  {first}", 44, width)
    for part in more:
        lines += _wrapped(f"{'':44}{part}".rstrip(), 46, width)
    return list(filter(None, lines))


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=" " * indent, drop_whitespace=True, initial_indent=""
    )


def _not_tested(report: Report, width: int) -> list[str]:
    """The axes that were not tested, a line for each reason."""
    lines = []
    for reason, axes in report.not_tested.items():
        lines += _wrapped(f"not tested, because {reason}: {', '.join(axes)}", 4, width)
    return lines

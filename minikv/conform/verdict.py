"""What an axis found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Word(StrEnum):
    """A verdict in a word."""

    SAME = "same bits"
    ROUNDING = "rounding"
    TIE = "near tie"
    UNDECIDED = "undecided"
    BUG = "bug"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Case:
    """A call that shows a bug: token ids, and how many of them each call takes."""

    ids: tuple[int, ...]
    chunks: tuple[int, ...]

    def __str__(self) -> str:
        return f"ids {list(self.ids)} in chunks of {'+'.join(map(str, self.chunks))}"


@dataclass(frozen=True)
class Kind:
    """What a bug looks like.

    Attributes
    ----------
    name : str
    reproduced : bool
        Whether minikv, on the same weights with that fault planted, gave the target's logits. If
        not, the name is a guess from what the bug does.
    """

    name: str
    reproduced: bool = False

    def __str__(self) -> str:
        how = "reproduced in minikv" if self.reproduced else "a guess"
        return f"{self.name} ({how})"


@dataclass(frozen=True)
class Verdict:
    """One axis, decided.

    Attributes
    ----------
    units : float
        Largest row difference, in units of the target's dtype.
    evidence : str
        On what it was decided.
    row : int or None
        First bad position.
    where : str
        First bad activation, where the target shows its activations.
    decide : str
        What would decide an undecided axis.
    effect : float
        Largest row difference, as a share of a row: in float64 where there is a twin.
    sight : float
        An effect below this would not have shown.
    raised : bool
        Whether the target raised an error.
    length : int or None
        Tokens of the shortest texts, of those tried, in which the axis still finds its bug.
    """

    axis: str
    word: Word
    units: float = 0.0
    evidence: str = ""
    row: int | None = None
    where: str = ""
    case: Case | None = None
    kind: Kind | None = None
    decide: str = ""
    effect: float = 0.0
    sight: float = 0.0
    raised: bool = False
    length: int | None = None

    def details(self) -> list[str]:
        """Evidence and all else, a part each."""
        found = [self.evidence]
        if self.row is not None:
            found.append(f"first bad position {self.row}")
        if self.where:
            found.append(f"first bad activation {self.where}")
        if self.case is not None:
            found.append(f"smallest case {self.case}")
        if self.length is not None:
            found.append(f"still there in texts of {self.length} tokens")
        if self.kind is not None:
            found.append(f"looks like: {self.kind}")
        if self.decide:
            found.append(f"would decide it: {self.decide}")
        return found

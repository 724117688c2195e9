"""Claims that are theorems here: each is run by what ``minikv prove`` runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..verify import CLAIMS, Case, Refuted, random_case
from ..verify.run import prove
from ..verify.texts import real_cases
from .claim import Cell, Figures, Setting

CONTROLS = 100  # random models, among which one must show a difference
RANDOM = "random models"


@dataclass(frozen=True)
class Proved:
    """What became of a theorem.

    Parameters
    ----------
    id, statement : str
    on : str
        Random models, or the model's name.
    cases : int
    verdict : str
        ``holds``, ``FAILS`` or ``VACUOUS``, as ``minikv prove`` says.
    control : str
        What leaving out a hypothesis changed; or why it does not hold.
    """

    id: str
    statement: str
    on: str
    cases: int
    verdict: str
    control: str

    @property
    def row(self) -> tuple[Cell, ...]:
        """For a table with `COLUMNS`."""
        return (f"{self.id}: {self.statement}", self.on, self.cases, self.verdict, self.control)

    @property
    def exact(self) -> dict[str, Cell]:
        """What no machine changes."""
        return {"id": self.id, "on": self.on, "cases": self.cases, "verdict": self.verdict}


COLUMNS = ("theorem", "on", "cases", "verdict", "the control")


def proved(setting: Setting, ids: Sequence[str], real: Sequence[str] | None = None) -> list[Proved]:
    """Prove theorems on random models; and on the models of the setting, all of them or `real`."""
    found = []
    for on, cases, controls in _materials(setting):
        for id in ids:
            if on != RANDOM and real is not None and id not in real:
                continue
            claim = CLAIMS[id]
            few = cases[:1] if id == "D" and on != RANDOM else cases  # whatever the text
            result = prove(claim, few, controls)
            told = result.failure or result.control
            found.append(Proved(id, claim.statement, on, len(few), result.verdict, told))
            setting.progress("theorems", len(found), len(ids) * (1 + len(setting.names)))
    return found


def all_hold(figures: Figures) -> bool:
    """Whether every theorem holds, with a control that shows a difference."""
    return all(each["verdict"] == "holds" for each in figures["theorems"])


def random_cases(setting: Setting) -> list[Case]:
    """Models of every family, growing."""
    count = setting.choose(40, 8)
    return [random_case(step, (step + 1) / count) for step in range(count)]


def _materials(setting: Setting) -> Iterator[tuple[str, list[Case], list[Case]]]:
    """What theorems are proved on: a name, cases, and cases for the controls."""
    controls = [random_case(step, scale=1.0) for step in range(CONTROLS)]
    yield RANDOM, random_cases(setting), controls
    for name in setting.names:
        cases = real_cases(name)
        yield name, cases[: setting.choose(2, 1)], cases


def refuted(id: str, cases: Sequence[Case], arithmetic: str) -> str:
    """Where a theorem first fails in an arithmetic; empty if it holds for all cases."""
    for number, case in enumerate(cases):
        try:
            CLAIMS[id].check(replace(case, arithmetic=arithmetic))
        except Refuted as error:
            return f"case {number + 1} of {len(cases)}: {error}"
    return ""

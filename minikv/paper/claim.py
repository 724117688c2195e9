"""What a claim of the paper is made of. Each has a file in `minikv.paper.claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..arithmetic import Arithmetic
from ..model import Model
from ..progress import Progress, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Choice = TypeVar("Choice")

Cell = str | float | int | bool | None
"""What stands in a column of a table."""

Figures = Mapping[str, Any]
"""Everything that is plotted or printed with ``--json``: what JSON can hold, and no more."""

Told = Callable[[Figures], "tuple[Verdict, str]"]
"""Verdict and reason, given figures and no more, so that both can be told again without a run."""

Plot = Callable[["Figure", Figures], None]
"""Draws figures; given no more than these, so that a page is made without running anything."""

KINDS = (
    "definition",
    "proposition",
    "equation",
    "algorithm",
    "section",
    "experiment",
    "table",
    "figure",
)
"""What a claim's id begins with, in the order of the page: ``table-2``, ``section-3.2``.

Two claims about one table have words after the number: ``table-4-perplexity``. An experiment is one
that the paper gives no number of its own: ``experiment-20-turns``.
"""


class Verdict(StrEnum):
    """What became of a claim."""

    REPRODUCED = "reproduced"
    ONE_READING = "reproduced only under this reading"
    REFUTED = "refuted"
    DIFFERS = "differs"
    CANNOT = "cannot be checked here"


class Loader(Protocol):
    """Loads a model by name, once."""

    def __call__(self, name: str, arithmetic: str | Arithmetic = "float32", /) -> Model:
        """A model that `minikv.load` finds, in an arithmetic."""


@dataclass(frozen=True)
class Setting:
    """What every experiment is given.

    Parameters
    ----------
    quick : bool
        Fewer texts, lengths or tokens: no more than some 20 seconds a claim on two cores.
    names : tuple of str
        The models to run on: `Claim.models`, or what ``--model`` names.
    model : Loader
        ``setting.model(name, "exact")`` is one of them.
    progress : Progress
        To be told how far it is.
    """

    quick: bool
    names: tuple[str, ...]
    model: Loader
    progress: Progress = silent

    def choose(self, full: Choice, quick: Choice) -> Choice:
        """One of two, by `quick`.

        Examples
        --------
        >>> Setting(True, (), print).choose([16, 32, 64], [16])
        [16]
        """
        return quick if self.quick else full


@dataclass(frozen=True)
class Finding:
    """What came of a claim.

    Parameters
    ----------
    verdict : Verdict
    reason : str
        One to three sentences: the reading, the counter-example, the reason, what would be needed.
    columns : tuple of str
        The head of the table: the paper's figure beside ours.
    rows : tuple of tuples of str, float, int, bool or None
    figures : mapping
        Everything that is plotted or printed with ``--json``.
    """

    verdict: Verdict
    reason: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    figures: Figures


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A table, a figure or a numbered claim of the paper.

    Parameters
    ----------
    id : str
        As `KINDS` says, and its file is named by it: ``section_3_2.py`` holds ``section-3.2``.
    where : str
        Where the paper has it: ``Table 2``.
    title : str
    says : str
        What the paper says, in our own words, with its figures.
    protocol : str
        What is run, by the paper's protocol, and where we had to choose.
    models : tuple of str
        The weights that it needs; none if it needs none.
    run : callable
    told : callable
        Verdict and reason of `Finding.figures`. A test tells them again from what is kept.
    plot : callable or None
        Draws `Finding.figures`.
    exact : tuple of str
        Keys of `Finding.figures` that no machine changes: bits and bytes under exact arithmetic. A
        test runs them again, quickly, and compares them with what is kept.
    """

    id: str
    where: str
    title: str
    says: str = field(repr=False)
    protocol: str = field(repr=False)
    models: tuple[str, ...] = ()
    run: Callable[[Setting], Finding] = field(repr=False)
    told: Told = field(repr=False)
    plot: Plot | None = field(default=None, repr=False)
    exact: tuple[str, ...] = ()

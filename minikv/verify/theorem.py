"""What a theorem is made of. Each has a file in `minikv.verify.theorems`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ..arithmetic import Arithmetic
from .backwards import BACKWARDS, KEPT_ROWS, blas_keeps_rows
from .bits import Refuted
from .cases import Case
from .dataflow import Flow

NO_BYPASS = "no bypass"
CAUSALITY = "causality"
ROW_LOCALITY = "determinism and row locality"
EXACT_SUMS = "exact sums"

# What a claim is checked on: a `Case`, or what a shape has for one. A claim about anything with a
# shape is one about cases.
Subject = TypeVar("Subject", contravariant=True)


@dataclass(frozen=True)
class Plot:
    """Points of a case, for the page: a caption, the names of the axes, what makes the points."""

    caption: str
    across: str
    up: str
    points: Callable[[Case], Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Weaker:
    """A way of looking at less: a change of a check, and the fault that only the whole check sees.

    Were the check so changed one day, the fault would get past it: ``proofs/test_weakened.py``
    plants both, and shows it.

    Parameters
    ----------
    name : str
        What is no longer looked at.
    old, new : str
        A text that stands once in the check's file, above its `Theorem`, and what takes its place.
    noticed : str
        A fault of ``proofs/mutants.toml``.
    file : str
        The file of ``minikv/verify`` that is changed, where it is not the theorem's.
    seed : int, optional
        Of the case on which the fault is noticed; by default the first one that refutes the
        theorem.
    """

    name: str
    old: str
    new: str
    noticed: str
    file: str = ""
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Theorem(Generic[Subject]):
    """What is claimed, how it is checked, and what refutes its negation.

    Parameters
    ----------
    id, name : str
        ``T1``, ``projection``.
    text : str
        The docstring of its file: the statement in a line, a blank line, and its section of the
        lecture in Markdown.
    formula, remark : str
        The statement in symbols, and why it holds, in HTML.
    hypotheses : tuple of str
        What it rests on; see the lecture.
    check : callable
        Raises `Refuted` where it does not hold.
    control : callable
        Drops a hypothesis and says what that changed; an empty text where it changed nothing.
    dropped : str
        What the control drops.
    abstract : str
        The theorem of ``proofs/rocq`` that states it of any decoder; empty where none does.
    concrete : tuple of str
        Those of the decoder in ``Decoder.v``, which is extracted and run beside the Python.
    scope : str
        What the check runs, where that is less than the statement, or another kind of claim.
    flows : tuple of Flow
        What the dataflow certificate claims of it.
    unlabelled : str
        Why the certificate claims nothing of it.
    windowed : bool
        Whether it is about sliding windows alone.
    plot : Plot, optional
    weaker : tuple of Weaker
        How it is shown that the check looks at all of this.
    """

    id: str
    name: str
    text: str = field(repr=False)
    formula: str = field(repr=False)
    remark: str = field(repr=False)
    hypotheses: tuple[str, ...] = ()
    check: Callable[[Subject], None] = field(repr=False)
    control: Callable[[Subject], str] = field(repr=False)
    dropped: str
    abstract: str = ""
    concrete: tuple[str, ...] = ()
    scope: str = ""
    flows: tuple[Flow, ...] = ()
    unlabelled: str = ""
    windowed: bool = False
    plot: Plot | None = None
    weaker: tuple[Weaker, ...] = field(default=(), repr=False)

    @property
    def statement(self) -> str:
        """In a line, without a full stop."""
        return self.text.partition("\n")[0].removesuffix(".")

    @property
    def section(self) -> str:
        """Its section of the lecture, in Markdown."""
        return self.text.partition("\n\n")[2].strip()

    def applies(self, case: Case) -> bool:
        """Whether it speaks of a case: if it is about windows, one is shorter than the text."""
        if not self.windowed:
            return True
        windows = map(case.config.window, range(case.config.num_hidden_layers))
        return any(window is not None and window < len(case.ids) for window in windows)


def refuted_in_float32(check: Callable[[Subject], None]) -> Callable[[Subject], str]:
    """The control of a theorem that float32 does not obey: its own check, in ``float32``.

    A few BLAS happen to give a row the same bits in any call, which float32 does not promise. Only
    there, the control takes the sums of several rows in another order, and says so.
    """

    def refutation(case: Subject, arithmetic: str | Arithmetic) -> str:
        try:  # every subject is a dataclass with an arithmetic, which the type does not say
            check(replace(case, arithmetic=arithmetic))  # type: ignore[type-var]
        except Refuted as error:
            return str(error)
        return ""

    def control(case: Subject) -> str:
        found = refutation(case, "float32")
        if found or not blas_keeps_rows():
            return found
        found = refutation(case, BACKWARDS)
        return f"{found} ({KEPT_ROWS})" if found else ""

    return control

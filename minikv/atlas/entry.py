"""What the atlas says of a system, and what a demonstration of it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ..arrays import Array
from ..caches import Cache
from ..model import Model
from ..verify.bits import difference
from .quantising import Quantised

CacheFor = Callable[[Model], Quantised]
"""What makes an empty cache of few bits for a model."""


class Kind(StrEnum):
    """What a system does to the cache."""

    EVICTING = "evicting"
    SELECTING = "selecting"
    QUANTISING = "quantising"
    MERGING = "merging"
    REUSING = "reusing"
    SPECULATING = "speculating"
    SPLITTING = "splitting"
    STATE = "another state"
    STUDY = "a study"


class Exactness(StrEnum):
    """What becomes of the full cache's bits.

    ``EXACT``: they stay, as the entry says under which condition. ``BOUNDED``: each
    stored number, or one output, changes by no more than a bound that is checked; the logits have
    none. ``LOSSY``: they change, and nothing that is checked bounds
    the logits. ``REFUTES``: what the entry changes is a hypothesis of the theorems, which then
    need another state. ``NOT_BUILT``: nothing here runs it, and the entry says why.
    """

    EXACT = "exact"
    BOUNDED = "bounded"
    LOSSY = "lossy"
    REFUTES = "refutes a hypothesis"
    NOT_BUILT = "not built"


@dataclass(frozen=True)
class Comparison:
    """One comparison of a demonstration.

    Attributes
    ----------
    what : str
        What was compared with what.
    holds : bool
        Whether it came out as the entry says.
    said : str
        How it came out: where bits differ, or figures.
    control : bool
        Whether it is a control: it holds where the two differ.
    """

    what: str
    holds: bool
    said: str
    control: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A system of the atlas.

    Parameters
    ----------
    name : str
        As its file and the command call it.
    title : str
        As its authors do.
    arxiv : str
        Number of the paper.
    kind : Kind
    state : str
        What the state is: of what the next token is a function.
    verdict : Exactness
    reason : str
        What is exact, what is bounded, what is lost; or why it is not built.
    read : str
        What was read of the paper.
    cure : str
        What restores the claim, where something does.
    theorems, counterexamples : tuple of str
        That say so; the second are files of ``proofs/counterexamples``.
    policy : type, optional
        The cache policy, where it is one.
    caches : mapping of str to callable
        Where it keeps few bits: what makes an empty cache for a model, by how it is set.
    demonstrate : callable, optional
        Compares bits on a small random model; see `Comparison`.
    """

    name: str
    title: str
    arxiv: str
    kind: Kind
    state: str
    verdict: Exactness
    reason: str
    read: str = "abstract"
    cure: str = ""
    theorems: tuple[str, ...] = ()
    counterexamples: tuple[str, ...] = ()
    policy: type[Cache] | None = field(default=None, repr=False)
    caches: Mapping[str, CacheFor] = field(default_factory=dict, repr=False)
    demonstrate: Callable[[], Sequence[Comparison]] | None = field(default=None, repr=False)

    @property
    def built(self) -> bool:
        """Whether it runs here."""
        return self.demonstrate is not None

    @property
    def file(self) -> str:
        """Where it is written, from the root of the repository."""
        if self.built:
            return f"minikv/atlas/systems/{self.name}.py"
        return "minikv/atlas/not_built.py"

    @property
    def test(self) -> str:
        """The tests that run its demonstration and its faults."""
        return "tests/atlas/test_systems.py"


def same(what: str, got: Array, expected: Array) -> Comparison:
    """That two arrays hold the same bits."""
    found = difference(got, expected)
    return Comparison(what, not found, found or "the same bits")


def other(what: str, got: Array, expected: Array) -> Comparison:
    """The control of `same`: that some bits differ."""
    found = difference(got, expected)
    return Comparison(what, bool(found), found or "the same bits", control=True)


def at_most(what: str, got: float, bound: float) -> Comparison:
    """That a number is within its bound; NaN is not."""
    return Comparison(what, bool(got <= bound), f"{got:.3g}, bound {bound:.3g}")


def above(what: str, got: float, bound: float) -> Comparison:
    """The control of `at_most`: what is bounded is not zero, or a smaller bound does not hold."""
    return Comparison(what, bool(got > bound), f"{got:.3g}, above {bound:.3g}", control=True)


def true(what: str, holds: bool, said: str, control: bool = False) -> Comparison:
    """That something is so: sets that are equal, sums that are kept."""
    return Comparison(what, bool(holds), said, control)

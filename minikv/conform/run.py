"""Testing a target on all axes."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import __version__
from ..errors import InputError, MinikvError
from ..progress import clear
from .adapter import NotTestedError, Subject, WrongShapeError, told
from .axes import AXES, Axis
from .bench import Bench, Settings
from .kinds import name_kinds
from .outcome import Report
from .shrink import smallest
from .trace import first_bad_activation
from .verdict import Verdict, Word

FIRST = "same-call"
TWIN = "float64"
LENGTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Of texts in which a bug is looked for again."""


def conform(target: object, axes: Sequence[str] | None = None, **settings: object) -> Report:
    """Put a decoder to the test: is a difference between two ways to its logits rounding or a bug?

    Parameters
    ----------
    target : object
        An adapter (see `minikv.conform.adapter`), or a function from token ids to logits.
    axes : sequence of str, optional
        Names in `minikv.conform.axes.AXES`; all by default.
    **settings
        Of `minikv.conform.bench.Settings`: ``effort``, ``seed``, ``twin``, ``length``, ``shrink``,
        ``kinds``.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If an axis or a setting is unknown, or the target cannot be called at all.

    Examples
    --------
    >>> def logits(ids):
    ...     return np.cos(np.outer(np.cumsum(ids), np.arange(1, 12)))
    >>> report = conform(logits, axes=["same-call", "causality", "cached"])
    >>> for verdict in report.verdicts:
    ...     print(verdict.axis, "--", verdict.word)
    same-call -- same bits
    causality -- same bits
    cached -- not tested
    """
    known = Settings(**settings)  # type: ignore[arg-type]  # checked by Settings
    wanted = chosen(axes)
    bench = Bench(target, known)
    _expect_answer(bench.subject)
    begun = time.monotonic()
    verdicts = []
    for number, axis in enumerate(wanted):
        known.progress(f"conform: {axis.name}", number, len(wanted))
        verdict = test_one(bench, axis)
        verdicts.append(verdict)
        if axis.name == FIRST and verdict.word is Word.BUG:
            said = f"the same call again is wrong already: {verdict.evidence}"
            verdicts += [_not_tested(rest, said) for rest in wanted[1:]]
            break
    if bench.twin_fault:
        verdicts.append(Verdict(TWIN, Word.BUG, evidence=bench.twin_fault))
    verdicts = explained(bench, verdicts)
    clear()
    return Report(
        bench.subject.name,
        bench.subject.dtype,
        _twin_name(bench),
        tuple(verdicts),
        time.monotonic() - begun,
        known.seed,
        dict(bench.measured),
        {
            "minikv": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            **bench.subject.fact("environment", {}),
        },
    )


def chosen(names: Sequence[str] | None) -> list[Axis]:
    """Axes by name, in the order in which they are tested; same-call is always one of them."""
    if names is None:
        return list(AXES.values())
    unknown = sorted(set(names) - AXES.keys())
    if unknown:
        raise InputError(f"the axis {unknown[0]!r:.80} is unknown; choose from {', '.join(AXES)}")
    return [axis for axis in AXES.values() if axis.name in {FIRST, *names}]


def test_one(bench: Bench, axis: Axis) -> Verdict:
    """One axis; what the target raises on the way is a bug, but for NotImplementedError."""
    missing = [ability for ability in axis.needs if not bench.subject.can(ability)]
    if missing:
        return _not_tested(axis, f"the target has no {missing[0]}")
    try:
        return axis.test(bench)
    except (NotTestedError, NotImplementedError) as reason:
        return _not_tested(axis, str(reason) or "the target says NotImplementedError")
    except WrongShapeError as error:
        return Verdict(axis.name, Word.BUG, evidence=str(error))
    except Exception as error:  # the target's code may raise anything
        return Verdict(axis.name, Word.BUG, evidence=f"raised {told(error)}", raised=True)


def explained(bench: Bench, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Bugs with their smallest case, first bad activation and kind."""
    if not any(verdict.word is Word.BUG for verdict in verdicts):
        return list(verdicts)
    found = list(verdicts)
    if bench.settings.shrink:
        found = [_smaller(bench, verdict) for verdict in verdicts]
    return name_kinds(bench, found) if bench.settings.kinds else found


def _smaller(bench: Bench, verdict: Verdict) -> Verdict:
    """A bug of the cache with its smallest case and first bad activation; others, how short."""
    if verdict.word is not Word.BUG or verdict.axis not in AXES:
        return verdict
    if verdict.axis == "cached" and verdict.row is not None:
        case = smallest(bench)
        where = first_bad_activation(bench, case) if case else ""
        return replace(verdict, case=case, where=verdict.where or where)
    return replace(verdict, length=_shortest(bench, verdict))


def _shortest(bench: Bench, bug: Verdict) -> int | None:
    """Tokens of the shortest texts in which an axis still finds its bug; None if of no others."""
    for length in LENGTHS:
        if length >= bench.length:
            break
        shorter = test_one(bench.shortened(length), AXES[bug.axis])
        same = shorter.evidence == bug.evidence if bug.raised else not shorter.raised
        if shorter.word is Word.BUG and same:
            return length
    return None


def _not_tested(axis: Axis, reason: str) -> Verdict:
    return Verdict(axis.name, Word.NOT_TESTED, evidence=reason)


def _twin_name(bench: Bench) -> str:
    if bench.wide is not None:
        return "float64"
    return "noise" if bench.nudged else "none"


def _expect_answer(subject: Subject) -> None:
    """Refuse a target that does not answer the simplest call."""
    try:
        subject.logits([0, 0])
    except MinikvError:
        raise
    except Exception as error:  # the target's code may raise anything
        raise InputError(
            f"logits([0, 0]) of {subject.name} raised {told(error)}; "
            "expected logits of shape (2, V)"
        ) from error

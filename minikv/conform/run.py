"""Testing a target on all axes."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence

import numpy as np

from .. import __version__
from ..errors import InputError, MinikvError
from ..progress import clear
from .adapter import Subject, told
from .axes import AXES, Axis
from .bench import Bench, Settings
from .diagnosis import explained
from .outcome import Report
from .verdict import Verdict, Word

FIRST = "same-call"
TWIN = "float64"


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
        verdict = axis.ask(bench)
        verdicts.append(verdict)
        if axis.name == FIRST and verdict.word is Word.BUG:
            said = f"the same call again is wrong already: {verdict.evidence}"
            verdicts += [rest.not_tested(said) for rest in wanted[1:]]
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


def _twin_name(bench: Bench) -> str:
    if bench.wide is not None:
        return "float64"
    return "noise" if bench.nudged else "none"


def _expect_answer(subject: Subject) -> None:
    """Refuse a target that does not answer the simplest call."""
    if not subject.can("logits") and not callable(subject.target):
        raise InputError(
            f"{subject.name} has no logits(ids) and cannot be called; expected one of both, that "
            "gives logits of shape (T, V)"
        )
    try:
        subject.logits([0, 0])
    except MinikvError:
        raise
    except Exception as error:  # the target's code may raise anything
        raise InputError(
            f"logits([0, 0]) of {subject.name} raised {told(error)}; "
            "expected logits of shape (2, V)"
        ) from error

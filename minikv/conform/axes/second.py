"""A second implementation of the same weights."""

from __future__ import annotations

import numpy as np

from ...errors import ConfigError, MinikvError, WeightsError
from .. import rule
from ..adapter import NotTestedError
from ..bench import MORE_POWER, Bench
from ..verdict import Verdict, Word
from .axis import Axis

DEPTH = 16.0
"""Two implementations round float32 parts apart in every layer, not in one place only."""


def test(bench: Bench) -> Verdict:
    """minikv, on the same weights in float64, gives the same logits.

    A fault that is alike in all ways (a rotary base, a norm, a scale) shows here and nowhere else.
    """
    try:
        model = bench.subject.target.reference()
    except (ConfigError, WeightsError) as error:
        raise NotTestedError(f"minikv does not load it: {error}") from None
    ids = bench.texts[-1]
    try:
        expected = np.asarray(model.logits(list(ids)), dtype=np.float64)
    except MinikvError as error:
        raise NotTestedError(f"minikv does not run it: {error}") from None
    expected = expected[:, : bench.whole(ids).shape[-1]]
    differences = rule.row_differences(expected, (bench.wide or bench.subject).whole(ids))
    if bench.wide is not None:
        return _by_the_twin(bench, differences)
    return _by_bounds(bench, bench.bounds(ids), differences)


def _by_the_twin(bench: Bench, differences: np.ndarray) -> Verdict:
    """Both are in float64."""
    limit = rule.twin_limit(bench.twin_spread, len(differences))
    limit = max(limit, DEPTH * rule.twin_limit(bench.twin_spread))
    said = f"{differences.max():.1e} of a row in float64"
    bad = differences > limit
    if bad.any():
        said = f"{said}, where {limit:.1e} is allowed"
        return Verdict(AXIS.name, Word.BUG, evidence=said, row=int(np.argmax(bad)))
    return Verdict(AXIS.name, Word.ROUNDING, evidence=f"{said}, by minikv")


def _by_bounds(bench: Bench, bounds: rule.Bounds, differences: np.ndarray) -> Verdict:
    """The target is in its own dtype, beside minikv in float64."""
    worst = float(differences.max())
    units = worst / bench.subject.unit
    said = f"{worst:.1e} of a row from minikv in float64"
    bad = differences > bounds.bug
    if bad.any():
        said = f"{said}, far above rounding"
        return Verdict(AXIS.name, Word.BUG, units, said, int(np.argmax(bad)))
    if (differences <= bounds.rounding).all() and bounds.has_power.all():
        said = f"a fault below {bounds.rounding.max():.1e} of a row would not show"
        return Verdict(AXIS.name, Word.ROUNDING, units, said)
    row = int(differences.argmax())
    return Verdict(AXIS.name, Word.UNDECIDED, units, said, row, decide=MORE_POWER)


AXIS = Axis("second", ("reference",), test)

"""A second implementation of the same weights."""

from __future__ import annotations

import numpy as np

from ...errors import ConfigError, MinikvError, WeightsError
from .. import rule
from ..adapter import NotTestedError
from ..bench import Bench
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
    judge = bench.wide or bench.subject
    got = judge.whole(ids)
    differences = rule.row_differences(expected, got)
    worst = float(differences.max())
    units = 0.0 if bench.wide is not None else worst / bench.subject.unit
    row = int(differences.argmax())
    if bench.wide is not None:
        limit = rule.twin_limit(bench.twin_spread, len(ids))
        limit = max(limit, DEPTH * rule.twin_limit(bench.twin_spread))
        if worst > limit:
            said = f"{worst:.1e} of a row in float64, where {limit:.1e} is allowed"
            return Verdict(AXIS.name, Word.BUG, units, said, int(np.argmax(differences > limit)))
        return Verdict(
            AXIS.name, Word.ROUNDING, units, f"{worst:.1e} of a row in float64, by minikv"
        )
    bounds = bench.bounds(ids)
    if (differences > bounds.bug).any():
        said = f"{worst:.1e} of a row from minikv in float64, far above rounding"
        return Verdict(AXIS.name, Word.BUG, units, said, int(np.argmax(differences > bounds.bug)))
    if (differences <= bounds.rounding).all() and bounds.has_power.all():
        sight = float(bounds.rounding.max())
        said = f"a fault below {sight:.1e} of a row would not show"
        return Verdict(AXIS.name, Word.ROUNDING, units, said)
    said = f"{worst:.1e} of a row from minikv in float64"
    need = "an adapter with wide(), the same weights in float64"
    return Verdict(AXIS.name, Word.UNDECIDED, units, said, row, decide=need)


AXIS = Axis("second", ("reference",), test)

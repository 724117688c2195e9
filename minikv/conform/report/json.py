"""A run as figures for a program."""

from __future__ import annotations

import math

from ..outcome import Report
from ..verdict import Verdict


def as_figures(report: Report) -> dict[str, object]:
    """Names and numbers that JSON can hold; an infinite difference is null."""
    return {
        "target": report.target,
        "dtype": report.dtype,
        "twin": report.twin,
        "exit_code": report.exit_code,
        "seconds": round(report.seconds, 3),
        "seed": report.seed,
        "measured": {name: _finite(value) for name, value in report.measured.items()},
        "environment": report.environment,
        "axes": [_verdict(verdict) for verdict in report.verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    case = kind = None
    if verdict.case is not None:
        case = {"ids": list(verdict.case.ids), "chunks": list(verdict.case.chunks)}
    if verdict.kind is not None:
        kind = {"name": verdict.kind.name, "reproduced": verdict.kind.reproduced}
    return {
        "axis": verdict.axis,
        "verdict": str(verdict.word),
        "units": _finite(verdict.units),
        "evidence": verdict.evidence,
        "first_bad_position": verdict.row,
        "first_bad_activation": verdict.where or None,
        "smallest_case": case,
        "shortest_texts": verdict.length,
        "kind": kind,
        "would_decide_it": verdict.decide or None,
        "effect": _finite(verdict.effect),
        "an_effect_below_would_not_show": _finite(verdict.sight),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

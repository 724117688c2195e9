"""Proposition 3.2: cached keys and values are recomputed ones, "in any precision"."""

from __future__ import annotations

from collections.abc import Mapping

from ...verify import Case, random_case
from ...verify.texts import real_cases
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict
from ..proved import CONTROLS, RANDOM, proved, random_cases, refuted

THEOREMS = ("T1", "T6", "T7")
FIXED = ("bfloat16", "float16")
SHAPED = ("float32", "float64")
ORDERS = {
    "exact": "any: the sums are exact",
    **dict.fromkeys(FIXED, "fixed, whatever rows share the call"),
    **dict.fromkeys(SHAPED, "the BLAS's, which depends on how many rows share the call"),
}
COLUMNS = ("theorem", "on", "arithmetic", "order of sums", "cases", "verdict", "where it fails")


def run(setting: Setting) -> Finding:
    """T1 in five arithmetics, and the theorems about rows and order on which it rests."""
    found = proved(setting, THEOREMS)
    rows: list[tuple[Cell, ...]] = [
        (
            f"{each.id}: {each.statement}",
            each.on,
            "exact",
            ORDERS["exact"],
            each.cases,
            each.verdict,
            None,
        )
        for each in found
    ]
    holds = {"exact": all(each.verdict == "holds" for each in found)}
    for arithmetic in (*FIXED, *SHAPED):
        for on, cases in _cases(setting, arithmetic):
            where = refuted("T1", cases, arithmetic)
            holds[arithmetic] = holds.get(arithmetic, True) and not where
            verdict = "FAILS" if where else "holds"
            row = ("T1", on, arithmetic, ORDERS[arithmetic], len(cases), verdict, where or None)
            rows.append(row)
    figures = {
        "theorems": [each.exact for each in found],
        "fixed_order_holds": {name: holds[name] for name in FIXED},
        "holds": holds,
    }
    return Finding(*told(figures), COLUMNS, tuple(rows), figures)


def _cases(setting: Setting, arithmetic: str) -> list[tuple[str, list[Case]]]:
    """On what T1 is run: real weights where sums are fast, and what may refute it everywhere."""
    if arithmetic in FIXED:
        return [(RANDOM, random_cases(setting))]
    found = [(RANDOM, [random_case(step, scale=1.0) for step in range(CONTROLS)])]
    return found + [(name, real_cases(name)[:1]) for name in setting.names]


def told(figures: Figures) -> tuple[Verdict, str]:
    """Verdict and reason."""
    return judged(figures["holds"])


def judged(holds: Mapping[str, bool]) -> tuple[Verdict, str]:
    """What the arithmetics say of "any precision"."""
    if not holds["exact"]:
        return Verdict.REFUTED, "T1 fails under exact arithmetic: see the table."
    failing = [name for name, held in holds.items() if not held]
    if not failing:
        return Verdict.REPRODUCED, "T1 holds in every arithmetic here."
    holding = [name for name, held in holds.items() if held]
    return Verdict.ONE_READING, (
        "Here the order of sums decides, and not the precision. T1 holds in "
        f"{', '.join(holding)}, where a row's sums do not depend on the rows beside it; it fails "
        f"in {', '.join(failing)}, where they do: keys that were cached in calls of one row have "
        "other bits than the same keys made again in a call of many. So the paper's \"any "
        'precision that preserves operation ordering" is true if it means just that, and BLAS, '
        "which adds in another order for one row than for many, need not preserve it. Exact sums "
        "need no order (T7)."
    )


CLAIM = Claim(
    id="proposition-3.2",
    where="Proposition 3.2",
    title="Recomputed keys and values are the cached ones, in any precision",
    says=(
        "for layers with full attention, keys and values that are recomputed from the stream are "
        "those that were cached, bit for bit, in any precision that preserves the order of "
        "operations."
    ),
    protocol=(
        "theorems T1, T6 and T7 (`minikv prove --only T1,T6,T7`) under exact arithmetic, on random "
        "models and on texts with real weights; then T1 in four other arithmetics: the stream of "
        "one pass, projected, against what a cache holds that was filled call by call. --quick: "
        "fewer models. (For the paper's own lengths and texts see table 2, for windows section "
        "3.2.)"
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    exact=("theorems", "fixed_order_holds"),
)

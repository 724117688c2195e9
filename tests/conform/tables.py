"""The tables of docs/conform.md, made from the axes and from figures: ``--write`` puts them there.

python -m tests.conform.evidence faults --dtype float32 --keep   # and so on: figures/counts.json
python -m tests.conform.field                                  # figures/field.json
python -m tests.conform.tables --write
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from minikv.conform.axes import AXES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conform.md"
FIGURES = Path(__file__).parent / "figures"


def axes() -> str:
    """A row an axis."""
    lines = ["| axis | what it asks | needs |", "|---|---|---|"]
    for axis in AXES.values():
        needs = ", ".join(f"`{need}`" for need in axis.needs) or "`logits`"
        lines.append(f"| `{axis.name}` | {axis.meaning} | {needs} |")
    return "\n".join(lines)


def counts() -> str:
    """The counts that were kept, newest run of each kind."""
    path = FIGURES / "counts.json"
    if not path.exists():
        return "Not run yet."
    runs = json.loads(path.read_text(encoding="utf-8"))
    parts = []
    faults = [run for run in runs.values() if "decoder x fault" in run]
    if faults:
        parts.append(_faults(faults))
    clean = [run for run in runs.values() if "models" in run]
    if clean:
        parts.append(_clean(clean))
    timed = [run for run in runs.values() if "quick run" in run]
    if timed:
        parts.append(_speed(timed))
    return "\n\n".join(parts)


def _faults(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| faults in | decoder x fault | found with the twin | by exact relations | kind right "
        "| of these reproduced | without twin: bug | undecided | neither "
        "| called good above its sight | run |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        total = run["decoder x fault"]
        share = "not asked"
        if "kind right" in run:
            share = f"{run['kind right']} ({100 * run['kind right'] / total:.0f} %)"
        cells = [
            run["run"],
            total,
            run["found with twin"],
            run["by exact relations"],
            share,
            run.get("kind reproduced", ""),
            run["without twin: bug"],
            run["without twin: undecided"],
            run["without twin: nothing"],
            run["called good above its sight"],
            run["date"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _clean(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| clean models in | models | twin | false alarms | runs with an undecided axis "
        "| largest difference in float64 | run |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        twin = run["twin"]
        largest = run.get("largest difference in the twin")
        cells = [
            run["dtype"],
            run["models"],
            twin,
            run["false alarms"],
            run["undecided"],
            f"{largest:.1e}" if largest is not None else "",
            run["date"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _speed(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| quick run of | axes | twin | exit code | processor time, s | by the clock, s | run |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ("axes", "twin", "exit code", "processor time", "by the clock", "date")
    for run in runs:
        cells = [f"`{run['quick run']}`", *(run[name] for name in names)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def field() -> str:
    """A row a target, and the bugs below."""
    path = FIGURES / "field.json"
    if not path.exists():
        return "Not run yet."
    figures = json.loads(path.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    lines = [
        f"Run {figures['date']} with {versions}.",
        "",
        "| target | axes | same bits | rounding | near tie | undecided | bug "
        "| largest rounding, units | largest in float64 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = figures["rows"]
    lines += [_field_row(row) for row in rows if "missing" not in row]
    lines += _told(
        "What is called a bug:", [f"{row['target']}: {bug}" for row in rows for bug in row["bugs"]]
    )
    lines += _told("Budgets that policies refuse, with an error in words:", _refused(rows))
    lines += _told(
        "Prefixes, each after a request that shares them:",
        [f"{row['target']}: {row['reuse']}" for row in rows if row.get("reuse")],
    )
    lines += _told(
        "Not run:", [f"{row['target']}: {row['missing']}" for row in rows if "missing" in row]
    )
    return "\n".join(lines)


def _field_row(row: dict[str, Any]) -> str:
    """A row of the table."""
    words = ("same bits", "rounding", "near tie", "undecided", "bug")
    wide = row.get("in float64")
    cells = [
        row["target"],
        row["axes"],
        *(row.get(word, 0) for word in words),
        f"{row.get('largest units', 0):.3g}",
        "" if wide is None else f"{wide:.1e}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _refused(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each budget and error, with the policies."""
    groups: dict[str, set[str]] = {}
    for row in rows:
        for part in filter(None, row.get("refused", "").split("; ")):
            policy, _, budget = part.partition(" refuses ")
            groups.setdefault(budget, set()).add(policy)
    return [f"{budget}: {', '.join(sorted(groups[budget]))}" for budget in sorted(groups)]


def _told(heading: str, items: list[str]) -> list[str]:
    """A heading and a list, or nothing."""
    if not items:
        return []
    return ["", heading, "", *(f"* {item}." for item in items)]


def written(page: str) -> str:
    """The page with its tables."""
    for name, make in (("axes", axes), ("counts", counts), ("field", field)):
        mark = f"<!-- {name}: python -m tests.conform.tables --write -->"
        pattern = re.compile(re.escape(mark) + r"\n.*?<!-- end -->", re.DOTALL)
        table = f"{mark}\n\n{make()}\n\n<!-- end -->"
        page = pattern.sub(lambda _, table=table: table, page)
    return page


def main(argv: list[str] | None = None) -> int:
    """Print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/conform.md")
    options = parser.parse_args(argv)
    if options.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(axes(), counts(), field(), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

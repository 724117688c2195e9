"""The table of docs/machines.md: golden values, one row an environment, dated, from any machine.

`portability.py --write` puts rows into ``machines.json``, in the place of older rows of the same
environment on the same machine, and the table into the page. Rows of other machines stay.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minikv.environment import environment

HERE = Path(__file__).parent
ROWS = HERE / "machines.json"
PAGE = HERE.parent / "docs" / "machines.md"
BEGIN = "<!-- table: made by proofs/portability.py --write -->"
END = "<!-- end of table -->"
COLUMNS = ("what varies", "environment", "exact", "float32", "BLAS kernel, threads", "note", "on")
FEEDING = "feeding"
IDENTITY = ("machine", "varied", "environment")

Entry = Mapping[str, Any]


def this_machine() -> str:
    """What the rows of this machine are measured on."""
    where = environment()
    return f"{where['cpu']}, {os.cpu_count()} cores, {where['platform']}"


def stored() -> list[dict[str, Any]]:
    """The rows of the table."""
    return json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else []


def merged(old: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """Old and new rows; a new one takes the place of the old one of its environment."""
    by_identity = {tuple(row[key] for key in IDENTITY): row for row in [*old, *new]}
    return list(by_identity.values())


def kept(row: Entry) -> dict[str, Any]:
    """What the table keeps of a row."""
    names = ("varied", "environment", "status", "kernel", "threads", "note", "float32", "exact")
    return {name: row[name] for name in names} | {"other": list(row["other"])}


def write(rows: Sequence[Entry]) -> None:
    """Put what ran here, or was refused, into the table and the page."""
    about = {"machine": this_machine(), "date": datetime.date.today().isoformat()}
    new = [kept(row) | about for row in rows if row["status"] in ("ran", "refused")]
    both = merged(stored(), new)
    lines = [json.dumps(row, ensure_ascii=False) for row in both]
    ROWS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), both), encoding="utf-8")


def page(text: str, rows: Sequence[Entry]) -> str:
    """The page with the table of these rows in it."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{summary(rows)}\n\n{table(rows)}\n\n{END}{after}"


def summary(rows: Sequence[Entry]) -> str:
    """How many environments there are, how many values, and what they were measured on."""
    ran = [row for row in rows if row["status"] == "ran"]
    exact = {row["exact"] for row in ran}
    float32 = {row["float32"] for row in ran if row["float32"]}
    fed = len({row["environment"] for row in ran if row["varied"] == FEEDING})
    lines = [
        f"**{len(environments(rows))} environments, one of them fed in {fed} ways: exact has "
        f"{_values(exact)}, float32 {_values(float32)}.**",
        "",
        "Measured on:",
        "",
    ]
    for number, (machine, date) in enumerate(measured_on(rows), start=1):
        lines.append(f"* {number}: {machine}; {date}")
    return "\n".join(lines)


def environments(rows: Sequence[Entry]) -> list[Entry]:
    """The rows that ran, and of those in which the text alone is fed otherwise one a machine."""
    ran = [row for row in rows if row["status"] == "ran"]
    fed = {row["machine"]: row for row in ran if row["varied"] == FEEDING}
    return [row for row in ran if row["varied"] != FEEDING] + list(fed.values())


def _values(values: set[str]) -> str:
    return "one value" if len(values) == 1 else f"{len(values)} values"


def measured_on(rows: Sequence[Entry]) -> list[tuple[str, str]]:
    """The machines and days of the rows, in their order."""
    return list(dict.fromkeys((row["machine"], row["date"]) for row in rows))


def table(rows: Sequence[Entry]) -> str:
    """The rows as Markdown, those of one kind beside each other."""
    numbers = {each: str(number) for number, each in enumerate(measured_on(rows), start=1)}
    kinds = list(dict.fromkeys(row["varied"] for row in rows))
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for row in sorted(rows, key=lambda row: kinds.index(row["varied"])):
        kernel = row["kernel"] if row["kernel"] and "unknown" not in row["kernel"] else ""
        threads = str(row["threads"] or "")
        exact = f"`{row['exact'][:8]}`"
        if row["status"] == "refused":
            exact = f"refused ({exact})"
        cells = [
            row["varied"],
            row["environment"],
            exact,
            f"`{row['float32'][:8]}`" if row["float32"] else "-",
            ", ".join(part for part in (kernel, threads) if part),
            row["note"],
            numbers[row["machine"], row["date"]],
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)

"""A run as a page that stands alone."""

from __future__ import annotations

from html import escape

from ..axes import AXES
from ..outcome import Report
from ..verdict import Verdict, Word
from .issue import as_issue

COLOURS = {
    Word.SAME: "#1b7837",
    Word.ROUNDING: "#1b7837",
    Word.TIE: "#1b7837",
    Word.UNDECIDED: "#8a5a00",
    Word.BUG: "#b2182b",
    Word.NOT_TESTED: "#666",
}
STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; }
td, th { text-align: left; vertical-align: top; padding: .4em .8em; border-bottom: 1px solid #ccc; }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto; }
"""


def as_html(report: Report) -> str:
    """A table of the axes, what each means, and a text for an issue for each bug."""
    rows = "\n".join(map(_row, report.verdicts))
    issues = "\n".join(f"<pre>{escape(as_issue(report, bug))}</pre>" for bug in report.bugs)
    where = ", ".join(f"{name} {value}" for name, value in report.environment.items())
    title = escape(f"minikv conform {report.target}")
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>
<h1>{title}</h1>
<p>{escape(report.dtype)}; twin: {escape(report.twin)}; {escape(report.summary)}.</p>
<table><tr><th>axis<th>verdict<th>units<th>on what</tr>
{rows}
</table>
{issues}
<p>{escape(where)}</p>
</html>
"""


def _row(verdict: Verdict) -> str:
    meaning = AXES[verdict.axis].meaning if verdict.axis in AXES else ""
    told = "<br>".join(escape(part) for part in verdict.details() if part)
    units = f"{verdict.units:.3g}" if verdict.units else ""
    return (
        f'<tr><td title="{escape(meaning)}">{escape(verdict.axis)}'
        f'<td style="color:{COLOURS[verdict.word]}">{escape(verdict.word)}'
        f"<td>{units}<td>{told}</tr>"
    )

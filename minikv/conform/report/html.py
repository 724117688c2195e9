"""A run as a page that stands alone."""

from __future__ import annotations

from html import escape

from ..axes import AXES
from ..outcome import Report
from ..verdict import Verdict, Word
from .issue import as_issue, versions

COLOURS = {
    Word.SAME: "#1b7837",
    Word.ROUNDING: "#1b7837",
    Word.TIE: "#1b7837",
    Word.UNDECIDED: "#8a5a00",
    Word.BUG: "#b2182b",
}
STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; }
td, th { text-align: left; vertical-align: top; padding: .4em .8em; border-bottom: 1px solid #ccc; }
td:nth-child(2) { white-space: nowrap; font-weight: bold; }
td small { display: block; max-width: 28em; color: #555; line-height: 1.3; }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto; }
"""


def as_html(report: Report) -> str:
    """A table of the axes, what each asks, and a text for an issue for each bug."""
    tested = [verdict for verdict in report.verdicts if verdict.word is not Word.NOT_TESTED]
    rows = "\n".join(map(_row, tested))
    title = escape(f"minikv conform {report.target}")
    told = f"{report.dtype}; twin: {report.twin}; {report.summary}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>
<h1>{title}</h1>
<p>{escape(told)}.</p>
<table><tr><th>axis, and what it asks<th>verdict<th>units of {escape(report.dtype)}<th>on what</tr>
{rows}
</table>
{_not_tested(report)}
{_issues(report)}
<p>{escape(versions(report))}</p>
</html>
"""


def _row(verdict: Verdict) -> str:
    meaning = AXES[verdict.axis].meaning if verdict.axis in AXES else ""
    told = "<br>".join(escape(part) for part in verdict.details() if part)
    units = f"{verdict.units:.3g}" if verdict.units else ""
    return (
        f"<tr><td>{escape(verdict.axis)}<small>{escape(meaning)}</small>"
        f'<td style="color:{COLOURS[verdict.word]}">{escape(verdict.word)}'
        f"<td>{units}<td>{told}</tr>"
    )


def _not_tested(report: Report) -> str:
    """A list of what the target does not have."""
    items = [
        f"<li>{escape(reason)}: {escape(', '.join(axes))}"
        for reason, axes in report.not_tested.items()
    ]
    if not items:
        return ""
    return "<h2>Not tested</h2>\n<ul>" + "\n".join(items) + "</ul>"


def _issues(report: Report) -> str:
    """A text for each bug."""
    texts = [f"<pre>{escape(as_issue(report, bug))}</pre>" for bug in report.bugs]
    if not texts:
        return ""
    return "<h2>To paste into an issue</h2>\n" + "\n".join(texts)

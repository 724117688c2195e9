"""The page of ``minikv prove --html``: one HTML file that needs no other."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from string import Template

import numpy as np

from .cases import Case
from .run import CLAIMS, Result, conclusion
from .theorem import Plot, Theorem


def page(results: Sequence[Result], case: Case, on: str, facts: Mapping[str, object]) -> str:
    """What was found, claim by claim; the plots and the repr are of `case`."""
    found = {result.id: result for result in results}
    template = (resources.files("minikv") / "data" / "report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        on=html.escape(on),
        conclusion=html.escape(conclusion(results, on)),
        rows=_rows(_summary(result) for result in results),
        sections="\n".join(_section(claim, found.get(claim.id), case) for claim in CLAIMS.values()),
        facts=_rows(facts.items()),
        example=html.escape(repr(case)),
    )


def _summary(result: Result) -> list[object]:
    control = "found" if result.control else ""
    time = f"{result.seconds:.2f} s"
    return [result.id, result.name, result.examples, time, result.verdict, control]


def _rows(rows: Iterable[Iterable[object]]) -> str:
    """Rows of an HTML table."""
    cells = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return "\n".join(f"<tr>{row}</tr>" for row in cells)


def _section(claim: Theorem[Case], result: Result | None, case: Case) -> str:
    """A claim's statement, formula and reason, what was found, and its plot."""
    parts = [
        f'<section id="{claim.id}">',
        f"<h2>{claim.id} {claim.name}</h2>",
        f'<p class="says">{html.escape(claim.statement)}.</p>',
        f'<p class="formula">{claim.formula}</p>',
        f"<p>{claim.remark}</p>",
        f"<pre>{html.escape(_found(claim, result))}</pre>",
    ]
    if claim.plot is not None:
        parts += [f"<p>{claim.plot.caption}</p>", _svg(claim.plot, case)]
    return "\n".join([*parts, "</section>"])


def _found(claim: Theorem[Case], result: Result | None) -> str:
    if result is None:
        return "Not run."
    ran = f"{result.examples} cases"
    if claim.scope:
        ran += f" ({claim.scope})"
    found = f"{result.verdict}, {ran}. Control: {result.control or 'no difference'}."
    return f"{found}\n{result.failure}".strip()


def _svg(plot: Plot, case: Case) -> str:
    """Dots in a field of 400 by 220, and the whole numbers at the ends of its axes."""
    points = plot.points(case)
    values = np.array(points or [(0.0, 0.0)])
    low = np.floor(values.min(axis=0))
    high = np.maximum(np.ceil(values.max(axis=0)), low + 1)
    places = ((values - low) / (high - low) * (400, -220) + (60, 240)).round(1)
    dots = [f'<circle cx="{across}" cy="{up}" r="4"/>' for across, up in places[: len(points)]]
    return "\n".join(
        [
            f'<svg viewBox="0 0 480 290" role="img" aria-label="{plot.up} against {plot.across}">',
            '<path d="M60 20V240H460"/>',
            *dots,
            f'<text x="260" y="282">{plot.across}</text>',
            f'<text transform="translate(24 130) rotate(-90)">{plot.up}</text>',
            f'<text x="60" y="262">{low[0]:g}</text>',
            f'<text x="460" y="262">{high[0]:g}</text>',
            f'<text x="40" y="246">{low[1]:g}</text>',
            f'<text x="40" y="30">{high[1]:g}</text>',
            "</svg>",
        ]
    )

"""Pages of what came of the claims: Markdown for the site, HTML, and the pictures of both."""

from __future__ import annotations

import base64
import hashlib
import html
import inspect
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from string import Template

from ..experiments.plots import new_figure
from ..numbers import cell
from .claim import Cell, Claim, Figures
from .run import Result, Section

PAPER = "[arXiv 2603.19664](https://arxiv.org/abs/2603.19664)"
NOT_KEPT = "not run"
_SOURCE = "minikv source"  # of a picture: the key of its text in the file
_DOTS_AN_INCH = 100


def verdict(result: Result | None) -> str:
    """What became of a claim, in a word or few."""
    return NOT_KEPT if result is None else str(result.finding.verdict)


def ran_on(result: Result) -> str:
    """What a result was made on, in one line."""
    short = " (a short run: --quick)" if result.quick else ""
    models = ", ".join(result.models) or "no weights"
    spent = ""
    if result.processor is not None:
        spent = f" ({result.processor:.1f} s of processor time)"
    told = [
        f"{models}{short}",
        f"{result.seconds:.1f} s{spent}, {result.date}",
        result.machine,
        company(result),
    ]
    return "; ".join(filter(None, told))


CROWDED = 1.25  # programs that want to run for each core, of which a run itself is one or all


def company(result: Result) -> str:
    """How many programs shared the machine with a run, where that is known."""
    if not result.load or result.cores is None:
        return ""
    averages = " to ".join(f"{load:.1f}" for load in result.load)
    crowded = ""
    if max(result.load) > CROWDED * result.cores:
        crowded = ": crowded, so that times are noisy"
    return f"load average {averages} on {result.cores} cores{crowded}"


# Markdown


def markdown(claims: Mapping[str, Claim], results: Mapping[str, Result]) -> str:
    """The page of the site."""
    summary = []
    for id, claim in claims.items():
        result = results.get(id)
        seconds = None if result is None else round(result.seconds, 1)
        link = f"[{claim.where}](#{slug(claim.where)})"
        summary.append([link, claim.title, verdict(result), seconds])
    together = round(sum(result.seconds for result in results.values()), 1)
    summary.append(["all of them", "", "", together])
    parts = [_INTRODUCTION, _markdown_table(("where", "claim", "verdict", "seconds"), summary)]
    parts += [_markdown_section(claim, results.get(id)) for id, claim in claims.items()]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = f"""\
# The paper, claim by claim

<!-- made by docs/paper/make.py from docs/paper/results and minikv/paper/claims -->

K. U. Qasim, J. Zhang, M. K. Shaheen and others, *The Residual Stream Is All You Need* ({PAPER}),
says that the KV cache is redundant, and measures it. Here is for each claim in the table below what
the paper says, what is run, and what came out: a verdict, its reason and a table.

```console
minikv paper --list             # the claims, and the weights that each needs
minikv paper --quick            # all of them, shortened
minikv paper --table 2          # one of them
minikv paper --model FOLDER     # on other weights; given again, on each by itself
minikv paper --machine NAME --keep docs/paper/results    # this machine, on figure 7's map
```

A figure of the paper is called the paper's. Every other follows from docs/paper/results, where
`minikv paper --keep` puts what a run measured, on which machine and when. *Reproduced* is what came
out as printed; *reproduced only under this reading* what does if the text is read as is said there;
*refuted* what has a counter-example; *differs* what came out otherwise, with the reason; *cannot be
checked here* what would need more than this repository has."""


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give a heading.

    Examples
    --------
    >>> slug("Table 4, perplexity"), slug("Section 3.2")
    ('table-4-perplexity', 'section-32')
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _markdown_section(claim: Claim, result: Result | None) -> str:
    parts = [
        f"## {claim.where}",
        f"**{claim.title}.** The paper: {claim.says}",
        f"*Run:* {claim.protocol}",
    ]
    if result is None:
        return "\n\n".join([*parts, f"*{NOT_KEPT}*"])
    finding = result.finding
    parts += [
        f"**{str(finding.verdict).capitalize()}.** {finding.reason}",
        _markdown_table(finding.columns, finding.rows),
    ]
    if claim.plot is not None:
        parts.append(f"![{claim.where}: {claim.title}](paper/{claim.id}.png)")
    parts.append(f"`minikv paper --claim {claim.id}`: {ran_on(result)}")
    return "\n\n".join(parts)


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = [columns, ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(_escaped(text) for text in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# HTML


def page(sections: Sequence[Section]) -> str:
    """One HTML file that needs no other."""
    template = (resources.files("minikv") / "data" / "paper.html").read_text(encoding="utf-8")
    columns, rows = summary(sections)
    parts = [_section(section, section.result) for section in sections if section.result]
    return Template(template).substitute(summary=_table(columns, rows), sections="\n".join(parts))


def summary(sections: Sequence[Section]) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """What became of all claims: the head of a table, with models where any was asked for."""
    if any(section.on for section in sections):
        named = [
            (section.claim.id, section.claim.title, section.on or None, section.verdict)
            for section in sections
        ]
        return ("claim", "what it says", "model", "verdict"), [*named]
    rows = [(section.claim.id, section.claim.title, section.verdict) for section in sections]
    return ("claim", "what it says", "verdict"), [*rows]


def _section(section: Section, result: Result) -> str:
    claim = section.claim
    finding = result.finding
    anchor = claim.id
    heading = f"{claim.where}: {claim.title}"
    if section.on:
        anchor = f"{claim.id}-{slug(section.on)}"
        heading = f"{heading} ({section.on})"
    parts = [
        f'<section id="{anchor}">',
        f"<h2>{html.escape(heading)}</h2>",
        f"<p>The paper: {html.escape(claim.says)}</p>",
        f"<p>Run: {html.escape(claim.protocol)}</p>",
        f"<p><b>{finding.verdict}.</b> {html.escape(finding.reason)}</p>",
        _table(finding.columns, finding.rows),
    ]
    if claim.plot is not None:
        data = base64.b64encode(picture(claim, finding.figures)).decode("ascii")
        parts.append(f'<img alt="{html.escape(claim.title)}" src="data:image/png;base64,{data}">')
    return "\n".join([*parts, f"<p><small>{html.escape(ran_on(result))}</small></p>", "</section>"])


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "\n".join(
        f"<tr>{''.join(f'<td>{html.escape(cell(value))}</td>' for value in row)}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


# Pictures


def picture(claim: Claim, figures: Figures) -> bytes:
    """A claim's plot as PNG, which says in the file what it was drawn from."""
    if claim.plot is None:
        raise ValueError(f"{claim.id} has no plot")
    figure = new_figure()
    claim.plot(figure, figures)
    file = io.BytesIO()
    told = {_SOURCE: picture_source(claim, figures), "Software": None}
    figure.savefig(file, format="png", dpi=_DOTS_AN_INCH, metadata=told)
    return file.getvalue()


def picture_source(claim: Claim, figures: Figures) -> str:
    """SHA-256 of what a picture is drawn from: the figures, and the function that draws them."""
    if claim.plot is None:
        raise ValueError(f"{claim.id} has no plot")
    text = json.dumps(figures, sort_keys=True) + inspect.getsource(claim.plot)
    return hashlib.sha256(text.encode()).hexdigest()


def drawn_from(png: bytes) -> str:
    """The `picture_source` that a file says it was drawn from; empty where it says none."""
    found = re.search(re.escape(_SOURCE.encode()) + b"\0([0-9a-f]{64})", png)
    return found[1].decode() if found else ""

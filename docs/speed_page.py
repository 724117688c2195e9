"""The page of speed and memory: what ``benchmarks/RESULTS.md`` says, conclusions first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Row = Mapping[str, str]

QUESTIONS = (  # measure, contender, against
    ("decode", "float32/numpy", "transformers"),
    ("decode", "exact/numba", "transformers"),
    ("decode", "float32/numpy", "llama.cpp float32"),
    ("decode", "exact/numba", "llama.cpp float32"),
    ("decode", "exact/numpy", "float32/numpy"),
    ("prefill", "float32/numpy", "transformers"),
    ("prefill", "exact/numba", "transformers"),
    ("prefill", "exact/numpy", "float32/numpy"),
    ("peak", "float32/numpy", "transformers"),
    ("peak", "exact/numba", "transformers"),
)
MEASURES = {
    "decode": "time of a decoded token",
    "prefill": "time of a prompt",
    "peak": "memory at its peak",
}


def tables(markdown: str) -> list[list[Row]]:
    """The tables of a page, each row by the headings of its columns.

    Examples
    --------
    >>> tables("| a | b |\\n|---|---|\\n| 1 | 2 |\\n")
    [[{'a': '1', 'b': '2'}]]
    """
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        heads, _, *rows = (
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        )
        found.append([dict(zip(heads, row, strict=True)) for row in rows])
    return found


def ratios(rows: Sequence[Row], measure: str, contender: str, against: str) -> list[float]:
    """The ratios of one question, over all sizes."""
    return [
        float(row["ratio"])
        for row in rows
        if row["measure"].startswith(measure)
        and row["contender"] == contender
        and re.fullmatch(rf"{re.escape(against)} [\d.]+ \w+", row["against"])
    ]


def meaning(low: float, high: float) -> str:
    """What ratios between these two mean.

    Examples
    --------
    >>> meaning(0.47, 0.53), meaning(1.2, 2.0), meaning(0.9, 1.5)
    ('less', 'more', 'less or more')
    """
    if high < 1:
        return "less"
    if low > 1:
        return "more"
    return "less or more"


def conclusions(results: str) -> list[str]:
    """What the table of ratios says: a table with a row for each question that it answers."""
    rows = next(table for table in tables(results) if "ratio" in table[0])
    said = ["| | minikv | takes, of | times as much | |", "|---|---|---|---|---|"]
    for measure, contender, against in QUESTIONS:
        if found := ratios(rows, measure, contender, against):
            low, high = min(found), max(found)
            cells = [MEASURES[measure], f"`{contender}`", against, f"{low:.2f} to {high:.2f}"]
            said.append(f"| {' | '.join(cells)} | **{meaning(low, high)}** |")
    if len(said) == 2:
        raise SystemExit("benchmarks/RESULTS.md answers no question of docs/speed_page.py")
    return said


def folded(markdown: str) -> str:
    """A page whose lists of facts about the machine are folded.

    Examples
    --------
    >>> print(folded("text\\n\\n* command: x\\n* threads: 2\\n\\nmore"))
    text
    <BLANKLINE>
    <details><summary>Command and machine</summary>
    <BLANKLINE>
    * command: x
    * threads: 2
    <BLANKLINE>
    </details>
    <BLANKLINE>
    more
    """
    facts = re.compile(r"^(\* command: .*\n(?:\* .*\n)*)", re.MULTILINE)
    summary = "<details><summary>Command and machine</summary>"
    return facts.sub(rf"{summary}\n\n\1\n</details>\n", markdown)


def narrow(markdown: str, columns: int = 8) -> str:
    """A page whose wide tables are cut into several, each with the first column.

    Examples
    --------
    >>> print(narrow("| a | b | c |\\n|---|---|---|\\n| 1 | 2 | 3 |\\n", columns=2))
    | a | b |
    |---|---|
    | 1 | 2 |
    <BLANKLINE>
    | a | c |
    |---|---|
    | 1 | 3 |
    <BLANKLINE>
    """

    def cut(block: re.Match[str]) -> str:
        (rows,) = tables(block[0])
        first, *heads = rows[0]
        if len(heads) < columns:
            return block[0]
        pieces = []
        for start in range(0, len(heads), columns - 1):
            some = [first, *heads[start : start + columns - 1]]
            lines = [some, *([row[head] for head in some] for row in rows)]
            written = [f"| {' | '.join(cells)} |" for cells in lines]
            written.insert(1, "|---" * len(some) + "|")
            pieces.append("\n".join(written) + "\n")
        return "\n".join(pieces)

    return re.sub(r"(?:^\|.*\n)+", cut, markdown, flags=re.MULTILINE)


def adapted(results: str) -> str:
    """Results for the site: no first heading, facts folded, tables that fit."""
    return narrow(folded(re.sub(r"\A# .*\n", "", results)))

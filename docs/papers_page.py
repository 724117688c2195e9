"""The page of papers: those that the repository cites and that the list does not have yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"\b(?:arXiv[: ]\s*|arxiv\.org/(?:abs|pdf)/)(\d{4}\.\d{5})")
PLACES = ("README.md", "minikv/**/*.py", "docs/*.md", "proofs/**/*.md", "proofs/**/*.py")
CHAPTERS = ("notebooks/*.md", "notebooks/*.py", "notebooks/exercises/*.py")


def numbers(text: str) -> set[str]:
    """The arXiv numbers in a text.

    Examples
    --------
    >>> sorted(numbers("arXiv 2309.17453, https://arxiv.org/abs/2306.14048; v. 1234.56789"))
    ['2306.14048', '2309.17453']
    """
    return set(NUMBER.findall(text))


def cited(patterns: Iterable[str] = (*PLACES, *CHAPTERS)) -> dict[str, list[str]]:
    """The arXiv numbers that the repository cites, each with the files that do."""
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            for number in numbers(path.read_text(encoding="utf-8")):
                found.setdefault(number, []).append(path.relative_to(ROOT).as_posix())
    return found


def also_cited(page: str) -> str:
    """A section on the papers that the page does not list, or nothing."""
    rest = {number: files for number, files in cited().items() if number not in numbers(page)}
    if not rest:
        return ""
    lines = ["\n## Also cited\n"]
    lines += [f"* arXiv {number}, in `{files[0]}`" for number, files in sorted(rest.items())]
    return "\n".join(lines) + "\n"

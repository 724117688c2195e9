"""Hints of the chapters that have none folded in them: ``hint("01.share")`` in a cell."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

from minikv.course.catalogue import chapters, tasks
from minikv.course.progress import record_hint

COURSE = Path(__file__).parents[1]
FILE = Path(__file__).with_name("hints.json")


def hint(name: str) -> None:
    """Print the hint of a task, such as ``01.share``, and note that it was asked for."""
    known = hints()
    if name not in known:
        near = ", ".join(each for each in known if each[:2] == name[:2]) or "01.share and so on"
        print(f"There is no hint {name!r}; there are {near}.")
        return
    record_hint(name)
    print(known[name])


def hints() -> dict[str, str]:
    """All hints, as plain text, by chapter and name of the task."""
    if FILE.exists():
        kept: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
        return kept
    return {
        f"{task.chapter}.{task.name}": plain(task.hint)
        for chapter in chapters(COURSE)
        for task in tasks(chapter)
        if task.hint
    }


def plain(text: str) -> str:
    """A hint without marks of HTML, a paragraph a line.

    Examples
    --------
    >>> plain("Write <code>a &lt; b</code>\\nhere.")
    'Write `a < b` here.'
    """
    text = re.sub(r"</?code>", "`", text)
    text = re.sub(r"<[^>]+>", "", text)
    paragraphs = (" ".join(part.split()) for part in html.unescape(text).split("\n\n"))
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)

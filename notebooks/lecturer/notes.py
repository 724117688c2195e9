"""The lecturer's notes on a chapter, ``notes/NN.md``, as the slides and the tests read them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).with_name("notes")
NUMBER = re.compile(r"^\d+\.(\d+\.?)?\s+")
SHOWN = re.compile(r'^Show: (".*?")$', re.MULTILINE | re.DOTALL)
MINUTES = re.compile(r"^(.*) \((\d+) minutes\)$")


@dataclass
class Notes:
    """What the notes on a chapter say.

    Attributes
    ----------
    board : dict of str to str
        For each section of the chapter, by its heading without number, Markdown of what to say.
    minutes : dict of str to int
        How long it takes.
    show : dict of str to list of str
        How the sentences begin that its slides show, where they are not the usual ones.
    parts : dict of str to str
        What else the notes have: typical mistakes, homework.
    """

    board: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, int] = field(default_factory=dict)
    show: dict[str, list[str]] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)


def without_number(heading: str) -> str:
    """A heading without the number before it.

    Examples
    --------
    >>> without_number("2.1 A sum"), without_number("4. The Markov property")
    ('A sum', 'The Markov property')
    >>> without_number("64 digits")
    '64 digits'
    """
    return NUMBER.sub("", heading)


def read(chapter: str) -> Notes:
    """The notes on a chapter; none where there is no file.

    Parameters
    ----------
    chapter : str
        Two digits.
    """
    path = FOLDER / f"{chapter}.md"
    notes = Notes()
    if not path.exists():
        return notes
    for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        if title == "At the board":
            _sections(text, notes)
        else:
            notes.parts[title] = text.strip()
    return notes


def _sections(text: str, notes: Notes) -> None:
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading, _, said = part.partition("\n")
        timed = MINUTES.match(heading)
        title = timed[1] if timed else heading
        if timed:
            notes.minutes[title] = int(timed[2])
        for shown in SHOWN.findall(said):
            beginnings = [" ".join(each.split()) for each in re.findall(r'"(.*?)"', shown, re.S)]
            notes.show.setdefault(title, []).extend(beginnings)
        notes.board[title] = SHOWN.sub("", said).strip()

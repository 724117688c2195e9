"""What the chapters ask of a student, read from the notebooks themselves.

A task is a code cell that calls a check, ``e04.check_replay(replay)``, below a heading that says
how hard it is: ``### Write 2: replay (two stars, 15 minutes)``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

_STARS = {"one": 1, "two": 2, "three": 3}
_HEADING = re.compile(
    r"^### (?P<title>.+?) \((?P<stars>one|two|three) stars?, (?P<minutes>\d+) minutes\)$",
    re.MULTILINE,
)
_HINT = re.compile(r"<details><summary>Hint</summary>(.*?)</details>", re.DOTALL)


@dataclass(frozen=True)
class Task:
    """One thing to write, and the check that judges it.

    Attributes
    ----------
    chapter : str
        Two digits.
    title, stars, minutes
        Of its heading.
    check : str
        Module and name, such as ``e04.check_replay``.
    cell : int
        Where the cell with the check stands in its notebook.
    hint : str
        The folded hint above it; empty where there is none.
    """

    chapter: str
    title: str
    stars: int
    minutes: int
    check: str
    cell: int
    hint: str

    @property
    def name(self) -> str:
        """What the check calls it: ``replay`` of ``e04.check_replay``."""
        return self.check.partition(".check_")[2]


def chapters(folder: Path) -> list[Path]:
    """The notebooks of a course, in order.

    Raises
    ------
    InputError
        If there are none.
    """
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise InputError(f"{folder} has no chapters NN_name.ipynb, expected the course's folder")
    return found


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Kind (``code`` or ``markdown``) and text of each cell.

    Raises
    ------
    InputError
        If the file is no notebook.
    """
    try:
        given = json.loads(notebook.read_bytes())["cells"]
        return [(str(cell["cell_type"]), "".join(cell["source"])) for cell in given]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{notebook} is no notebook that can be read") from None


def tasks(notebook: Path) -> list[Task]:
    """Everything that a chapter asks for, in its order."""
    return tasks_in(notebook.name[:2], cells(notebook))


def tasks_in(chapter: str, given: Iterable[tuple[str, str]]) -> list[Task]:
    """What the cells of a chapter ask for, in their order."""
    found = []
    heading = None
    hint = ""
    for number, (kind, text) in enumerate(given):
        if kind == "markdown":
            for heading in _HEADING.finditer(text):
                hints = _HINT.findall(text[heading.end() :])
                hint = hints[0].strip() if hints else ""
            continue
        for call in check_calls(_parsed(text)):
            if heading is None:
                continue
            stars = _STARS[heading["stars"]]
            minutes = int(heading["minutes"])
            check = ast.unparse(call.func)
            found.append(Task(chapter, heading["title"], stars, minutes, check, number, hint))
    return found


def _parsed(source: str) -> ast.AST:
    """The tree of a cell; an empty one if it cannot be read."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def check_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls of checks in a tree, ``eNN.check_name(...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.fullmatch(r"e\d\d\.check_\w+", ast.unparse(node.func)):
            yield node

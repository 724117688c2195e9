"""How far a student is: which checks were passed, how often they were tried, which hints were read.

Kept in one file in the folder of the notebooks, by the notebooks alone: a check that a script or a
test calls leaves no trace. Nothing is sent anywhere.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError

FILE = ".minikv-progress.json"
SETTING = "MINIKV_PROGRESS"
"""Names another file; ``off`` keeps no more."""

Verdict = Callable[[str, str, bool, str], None]
"""``(module, check, passed, message)``, as a check of the course tells it."""

listeners: list[Verdict] = []
"""Who else is told every verdict."""


def record(module: str, check: str, passed: bool, message: str) -> None:
    """Tell the listeners a verdict; in a notebook, also write it down."""
    for listener in listeners:
        listener(module, check, passed, message)
    if not in_notebook():
        return
    progress = read(place())
    known = progress["checks"].setdefault(f"{module}.{check}", {"tries": 0, "solved": False})
    if not known["solved"]:
        known["tries"] += 1
    known["solved"] = known["solved"] or passed
    write(place(), progress)


def record_hint(number: str) -> None:
    """Write down, in a notebook, that a hint was asked for."""
    if not in_notebook():
        return
    progress = read(place())
    if number not in progress["hints"]:
        progress["hints"].append(number)
    write(place(), progress)


def in_notebook() -> bool:
    """Whether a notebook runs this, and is not told to keep nothing."""
    if os.environ.get(SETTING) == "off" or "IPython" not in sys.modules:
        return False
    return sys.modules["IPython"].get_ipython() is not None


def place(folder: Path | None = None) -> Path:
    """Where progress is kept, or was, for the notebooks of a folder; by default the present one."""
    named = os.environ.get(SETTING, "off")
    return (folder or Path()) / FILE if named in ("", "off") else Path(named)


def read(path: Path) -> dict[str, Any]:
    """What was kept: ``checks`` by name with ``tries`` and ``solved``, and the list ``hints``.

    Raises
    ------
    InputError
        If the file holds something else.
    """
    if not path.exists():
        return {"checks": {}, "hints": []}
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
        known = {"checks": dict(progress["checks"]), "hints": list(progress["hints"])}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} does not hold the progress of a course; remove it") from None
    return known


def write(path: Path, progress: dict[str, Any]) -> None:
    """Keep it; a file that cannot be written keeps nobody from learning."""
    text = json.dumps(progress, indent=1, sort_keys=True)
    part = path.with_suffix(".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        print(f"(Your progress is not kept: {error}.)")

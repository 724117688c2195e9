"""Marks for notebooks that were handed in: every check of the course, on what a student wrote."""

from __future__ import annotations

import csv
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import InputError
from . import SECONDS, sandbox
from .catalogue import Task, chapters, tasks

_MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Mark:
    """What one task brought."""

    student: str
    task: Task
    passed: bool
    message: str

    @property
    def points(self) -> int:
        """Its stars, or nothing."""
        return self.task.stars if self.passed else 0


def submissions(given: Iterable[Path], course: Path) -> Iterator[tuple[str, Path, Path]]:
    """Student, notebook and the chapter that it was made from, for files and folders.

    Raises
    ------
    InputError
        For what holds no chapter, or the notebook of none.
    """
    known = {path.name: path for path in chapters(course)}
    for place in given:
        if not place.exists():
            raise InputError(f"{place} is not there, expected a folder or a notebook")
        found = sorted(place.rglob("*.ipynb")) if place.is_dir() else [place]
        chosen = [path for path in found if path.name in known and not path.is_symlink()]
        if not chosen:
            raise InputError(f"{place} has no chapter of {course}, such as {next(iter(known))}")
        for path in chosen:
            owner = place.name if place.is_dir() else place.parent.name
            yield owner, path, known[path.name]


def grade(student: str, notebook: Path, chapter: Path, seconds: int = SECONDS) -> list[Mark]:
    """The marks of one notebook, for all tasks of its chapter.

    Parameters
    ----------
    student : str
    notebook : Path
        What was handed in.
    chapter : Path
        The course's own notebook, whose tasks and stars count.
    seconds : int
        Of processor time, for each check.
    """
    asked = tasks(chapter)
    said = _verdicts(notebook, chapter, seconds, len(asked))
    marks = []
    for task in asked:
        passed, message = said.get(task.check, (False, "the notebook could not be judged"))
        marks.append(Mark(student, task, passed, message))
    return marks


def _verdicts(
    notebook: Path, chapter: Path, seconds: int, count: int
) -> dict[str, tuple[bool, str]]:
    """Passed and message by check, from a process that is ended when its time is over."""
    reading, writing = os.pipe()
    request = {
        "course": str(chapter.parent.resolve()),
        "chapter": str(chapter.resolve()),
        "notebook": str(notebook.resolve()),
        "seconds": seconds,
        "verdicts": writing,
    }
    command = [sys.executable, "-P", "-m", "minikv.course.answers", json.dumps(request)]
    settings = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MINIKV_PROGRESS": "off"}
    process = subprocess.Popen(
        sandbox.apart(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
        start_new_session=True,
        env=_environment() | settings,
    )
    os.close(writing)
    try:
        lines = _lines(reading, time.monotonic() + 60 + 3 * seconds * count)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
    return dict(filter(None, map(_verdict, lines)))


def _environment() -> dict[str, str]:
    """What Python needs to find itself and this package; no secrets of the lecturer's."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _lines(pipe: int, end: float) -> list[bytes]:
    said = b""
    while len(said) < _MOST_BYTES:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(pipe, 65536) if ready else b""
        if not piece:
            break
        said += piece
    return said.split(b"\n")


def _verdict(line: bytes) -> tuple[str, tuple[bool, str]] | None:
    try:
        given = json.loads(line)
        return str(given["check"]), (given["passed"] is True, _plain(str(given["message"])))
    except (ValueError, KeyError, TypeError):
        return None


def _plain(message: str) -> str:
    """What a terminal only shows: no sequence that moves its cursor or sets its title."""
    return "".join(letter for letter in message if letter.isprintable() or letter == "\n")


def summary(marks: Sequence[Mark]) -> list[tuple[str, str, int, int]]:
    """Student, chapter, points and what there was to get, in the order of the marks."""
    totals: dict[tuple[str, str], list[int]] = {}
    for mark in marks:
        total = totals.setdefault((mark.student, mark.task.chapter), [0, 0])
        total[0] += mark.points
        total[1] += mark.task.stars
    return [(*key, points, most) for key, (points, most) in totals.items()]


def write_csv(marks: Iterable[Mark], file: TextIO) -> None:
    """One line a task: student, chapter, task, check, points, of, message."""
    writer = csv.writer(file)
    writer.writerow(["student", "chapter", "task", "check", "points", "of", "message"])
    for mark in marks:
        task = mark.task
        row = [mark.student, task.chapter, task.title, task.check, mark.points, task.stars]
        writer.writerow([*map(_harmless, row), _harmless(" ".join(mark.message.split()))])


def _harmless(value: object) -> object:
    """A text that a spreadsheet does not take for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value

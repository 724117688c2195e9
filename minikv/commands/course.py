"""``minikv course``: how far a student is, hints, and marks for a lecturer."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

import minikv

from ..course import SECONDS
from ..errors import InputError
from .options import add_json
from .output import print_json, print_table

SUMMARY = "how far you are in the course, and marks for a class"
DESCRIPTION = """\
"status" says which tasks of the chapters are solved, how often their checks were tried and which
hints were asked for; this is kept in the notebooks' folder, and nowhere else. "grade" runs every
check of the course on notebooks that were handed in, and gives a star's point for each star of a
task that is solved; it needs Linux. A check runs in a process that has limits and a network of its
own, which leads nowhere, reads the system's, Python's and minikv's folders, and writes only in its
own. Sockets at paths, and changes of modes, owners and times, Python's hook alone refuses."""
EXAMPLES = """\
  minikv course status
  minikv course grade handed-in/*
  minikv course grade handed-in/ada handed-in/bob --csv > marks.csv"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("what", choices=("status", "grade"), help="what is asked for")
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="for grade: what was handed in"
    )
    parser.add_argument("--course", type=Path, metavar="DIR", help="the folder of the chapters")
    parser.add_argument("--csv", action="store_true", help="for grade: one line a task, as CSV")
    parser.add_argument(
        "--seconds",
        type=int,
        default=SECONDS,
        metavar="N",
        help=f"for grade: for each check ({SECONDS})",
    )
    parser.add_argument(
        "--without-walls",
        action="store_true",
        help="for grade: go on where the system has no Landlock, or no namespaces",
    )
    add_json(parser)


def run(args: Namespace) -> int:
    """Say how far a student is, or print marks."""
    course = _course(args.course)
    if args.what == "grade":
        return _grade(args, course)
    if args.folders:
        raise InputError("status takes no folders; --course names that of the chapters")
    return _status(course, args.json)


def _course(given: Path | None) -> Path:
    """The folder of the chapters: the one named, the present one, or the checkout's."""
    if given is not None:
        return given
    own = Path(minikv.__file__).parents[1] / "notebooks"
    for place in (Path(), Path("notebooks"), own):
        if (place / "exercises").is_dir() and any(place.glob("[0-9][0-9]_*.ipynb")):
            return place
    raise InputError("no course is here: go to the folder of its chapters, or name it by --course")


def _status(course: Path, as_json: bool) -> int:
    from ..course.catalogue import chapters, tasks
    from ..course.progress import place, read

    progress = read(place(course))
    rows = []
    for chapter in chapters(course):
        for task in tasks(chapter):
            known = progress["checks"].get(task.check, {"tries": 0, "solved": False})
            state = "solved" if known["solved"] else "open"
            hint = "used" if f"{task.chapter}.{task.name}" in progress["hints"] else ""
            stars = "*" * task.stars
            rows.append([task.chapter, task.title, stars, state, known["tries"], hint])
    solved = sum(row[3] == "solved" for row in rows)
    if as_json:
        names = ("chapter", "task", "stars", "state", "tries", "hint")
        tasks_told = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"solved": solved, "of": len(rows), "tasks": tasks_told})
        return 0
    print_table(["chapter", "task", "stars", "state", "tries", "hint"], rows)
    print(f"\n{solved} of {len(rows)} solved, {len(progress['hints'])} hints used")
    return 0


def _grade(args: Namespace, course: Path) -> int:
    if sys.platform == "win32":
        raise InputError(
            "grade needs Linux, whose walls keep what was handed in from your files: run it in WSL"
        )
    from ..course import grading, sandbox
    from ..progress import show

    if not args.folders:
        raise InputError("nothing to grade: name the folders that were handed in")
    if args.seconds < 1:
        raise InputError(f"--seconds is {args.seconds}, expected a whole number from 1 up")
    missing = [wall for wall, stands in sandbox.describe().items() if not stands]
    if missing and not args.without_walls:
        raise InputError(
            f"this system has no walls around {' or '.join(missing)}: what was handed in could "
            "reach yours. Grade in a container, or say --without-walls"
        )
    given = list(grading.submissions(args.folders, course))
    marks = []
    for number, (student, notebook, chapter) in enumerate(given):
        show("grading", number, len(given))
        marks += grading.grade(student, notebook, chapter, args.seconds)
    show("grading", len(given), len(given))
    if args.csv:
        grading.write_csv(marks, sys.stdout)
        return 0
    if args.json:
        print_json({"marks": [asdict(mark) | {"points": mark.points} for mark in marks]})
        return 0
    print_table(["student", "chapter", "points", "of"], grading.summary(marks))
    for mark in marks:
        if not mark.passed:
            message = " ".join(mark.message.split())
            print(f"\n{mark.student}, {mark.task.chapter} {mark.task.name}: {message}")
    return 0

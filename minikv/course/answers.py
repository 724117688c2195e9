"""One notebook, judged: what a student wrote is taken out of it and given to the course's checks.

Run by `minikv.course.grading` in a process of its own, which starts another for each check. From
the notebook come imports, functions, classes and constants, and all of the cell of a check but the
call of the check itself: the checks are the lecturer's, and figures are not drawn.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import sandbox
from .catalogue import Task, cells, check_calls, tasks

_MOST = 4000  # characters of a message
_OPEN_FILES = 1024  # more than this process ever opens
_KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def main() -> None:
    """Judge a notebook; one line of JSON a task on the file descriptor that is named."""
    request = json.loads(sys.argv[1])
    course, notebook = Path(request["course"]), Path(request["notebook"])
    verdicts = os.fdopen(request["verdicts"], "w", encoding="utf-8")
    sys.path[:0] = [str(course)]
    asked = {task.check: task for task in tasks(Path(request["chapter"]))}
    module = f"e{request['chapter'].rpartition('/')[2][:2]}"
    checks = importlib.import_module(f"exercises.{module}")
    importlib.import_module("exercises.library")  # before the walls, which hide the course
    with contextlib.suppress(ImportError):
        importlib.import_module("hypothesis.extra.numpy")
    given = cells(notebook)
    for task in asked.values():
        check = getattr(checks, task.check.partition(".")[2])
        passed, message = judged_apart(task, check, given, request["seconds"])
        line = {"check": task.check, "passed": passed, "message": message[:_MOST]}
        print(json.dumps(line), file=verdicts, flush=True)


def judged_apart(
    task: Task, check: Callable[..., bool], given: list[tuple[str, str]], seconds: int
) -> tuple[bool, str]:
    """`judged` in a process of its own, which ends when its time is over."""
    reading, writing = os.pipe()
    with _folder() as folder:
        child = os.fork()
        if child == 0:
            try:
                _in_child(task, check, given, (seconds, folder, writing))
            finally:
                os._exit(1)  # whatever is raised there, what follows is the parent's
        os.close(writing)
        said, late = _read(reading, 3 * seconds)
        if late:
            os.kill(child, signal.SIGKILL)
        os.close(reading)
        _, status = os.waitpid(child, 0)
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return False, f"stopped after {seconds} s: a loop without an end?"
    try:
        verdict = json.loads(said)
        return verdict["passed"] is True, str(verdict["message"])
    except (ValueError, KeyError, TypeError):
        code = os.waitstatus_to_exitcode(status)
        return False, f"the process ended (exit code {code}) before the check had an answer"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one answer, removed afterwards as far as what is in it can be.

    By ``rm``, which follows no link and stops at no depth; Python's own functions do, before 3.13.
    """
    folder = tempfile.mkdtemp(prefix="minikv-answer-")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["rm", "-rf", "--", folder], check=False)


def _read(pipe: int, seconds: float) -> tuple[bytes, bool]:
    """What is written until the other end closes, a million bytes at most; whether time was up."""
    said = b""
    end = time.monotonic() + seconds
    while len(said) < 10**6:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return said, True
        piece = os.read(pipe, 65536)
        if not piece:
            return said, False
        said += piece
    return said, True


def _in_child(
    task: Task,
    check: Callable[..., bool],
    given: list[tuple[str, str]],
    settings: tuple[int, Path, int],
) -> None:
    """Judge behind walls, write the verdict, and end."""
    seconds, folder, writing = settings
    try:
        _enclose(seconds, folder, writing)
    except Exception as error:
        _say(writing, False, f"not judged, because its walls do not stand: {error}")
        return
    try:
        passed, message = judged(task, check, given)
    except BaseException as error:  # SystemExit and the like: a mark, and not a stop
        passed = False
        message = f"your code raised {type(error).__name__}: {error}"
    _say(writing, passed, message)
    os._exit(0)


def _say(writing: int, passed: bool, message: str) -> None:
    os.write(writing, json.dumps({"passed": passed, "message": message[:_MOST]}).encode())


def _enclose(seconds: int, folder: Path, writing: int) -> None:
    """Leave this process one folder, one end of a pipe, and its limits.

    Raises
    ------
    OSError
        If the system refuses a wall that it has.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.closerange(3, writing)  # among them where the verdicts of all tasks go
    os.closerange(writing + 1, _OPEN_FILES)
    os.chdir(folder)
    os.environ.update(HOME=str(folder), TMPDIR=str(folder), MPLBACKEND="Agg")
    tempfile.tempdir = str(folder)
    sys.dont_write_bytecode = True
    sandbox.limit(seconds)
    has_landlock = sandbox.landlock_version() > 0
    if not sandbox.confine([folder], readable()) and has_landlock:
        raise OSError("Landlock does not confine")
    sandbox.refuse(folder)


def readable() -> list[Path]:
    """Folders that Python and the packages need; not the course, nor anybody's home."""
    named = ["/usr", "/lib", "/lib64", "/etc", "/proc/self", "/proc/meminfo", "/dev/urandom"]
    packages = [Path(__file__).parents[1], *(Path(p) for p in sys.path if "site-packages" in p)]
    counterexamples = Path(__file__).parents[2] / "proofs" / "counterexamples"
    return [*map(Path, named), Path(sys.base_prefix), *packages, counterexamples]


def judged(
    task: Task, check: Callable[..., bool], given: list[tuple[str, str]]
) -> tuple[bool, str]:
    """Whether the check accepts what the notebook has, and what it says if not."""
    from .progress import listeners

    told: list[tuple[bool, str]] = []
    listeners[:] = [lambda module, name, passed, message: told.append((passed, message))]
    space, call = gathered(task.check, given)
    if call is None:
        return False, f"the notebook does not call {task.check}"
    arguments = [_value(argument, space) for argument in call.args]
    check(*arguments)
    return told[-1]


def gathered(check: str, given: list[tuple[str, str]]) -> tuple[dict[str, Any], ast.Call | None]:
    """The names that a notebook defines up to its call of a check, and that call."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for kind, source in given:
        if kind != "code":
            continue
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError):
            continue
        calls = [call for node in body for call in check_calls(node)]
        call = next((call for call in calls if ast.unparse(call.func) == check), None)
        for node in body:
            if call is not None and not list(check_calls(node)):
                _run(node, space)  # an error here is the student's, and is told
            elif call is None and _is_definition(node):
                with contextlib.suppress(Exception):  # a default that needs the real weights
                    _run(node, space)
        if call is not None:
            return space, call
    return space, None


def _is_definition(node: ast.stmt) -> bool:
    """An import, a function, a class, or a name for a constant."""
    if isinstance(node, _KEPT):
        return not _folded(node)
    if not isinstance(node, ast.Assign):
        return False
    if isinstance(node.value, ast.Lambda):
        return True
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _folded(node: ast.stmt) -> bool:
    """A solution that the chapter itself has."""
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(each).startswith("unless_solved(") for each in node.decorator_list
    )


def _run(node: ast.stmt, space: dict[str, Any]) -> None:
    exec(compile(ast.Module([node], []), "<your notebook>", "exec"), space)


def _value(node: ast.expr, space: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<your notebook>", "eval"), space)


if __name__ == "__main__":
    main()

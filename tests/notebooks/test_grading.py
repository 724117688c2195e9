"""Marks for what is handed in: good, bad and hostile, each of them a mark and none a stop."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")
if sys.platform != "linux":
    pytest.skip("the walls are Linux's", allow_module_level=True)

import exercises

from minikv.cli import main
from minikv.course import answers, grading, sandbox
from minikv.errors import InputError

CHECKS = """
from . import exercise, require


def doubled(double):
    require(double(3) == 6, f"double(3) is {double(3)}, expected 6")


"""
HANDED_IN = {
    "good": "def good(x):\n    return 2 * x",
    "bad": "def bad(x):\n    return x",
    "nothing": "def nothing(x):\n    return None",
    "crash": "def crash(x):\n    return x / 0",
    "syntax": "def syntax(x)\n    return 2 * x",
    "loop": "def loop(x):\n    while True:\n        pass",
    "sleep": "import time\ndef sleep(x):\n    time.sleep(1000)",
    "memory": "def memory(x):\n    return len(bytearray(2**36))",
    "network": "import socket\ndef network(x):\n    socket.create_connection(('1.1.1.1', 80))",
    "raw_network": (
        "import _socket\ndef raw_network(x):\n"
        "    _socket.socket(2, 1).connect(('127.0.0.1', PORT))\n    return 6"
    ),
    "leave": "import os\ndef leave(x):\n    os._exit(0)",
    "quit": "import sys\ndef quit(x):\n    sys.exit()",
    "delete": "import os\ndef delete(x):\n    os.remove(VICTIM)\n    return 6",
    "tree": "import shutil\ndef tree(x):\n    shutil.rmtree(FOLDER)\n    return 6",
    "quietly": "import shutil\ndef quietly(x):\n    shutil.rmtree(FOLDER, True)\n    return 6",
    "shell": "import os\ndef shell(x):\n    os.system('rm -rf ' + FOLDER)\n    return 6",
    "output": "def output(x):\n    while True:\n        print('x' * 10**6)",
    "file": (
        "def file(x):\n    with open('big', 'wb') as big:\n"
        "        while True:\n            big.write(bytes(10**6))"
    ),
    "fork": "import os\ndef fork(x):\n    while True:\n        os.fork()",
    "solution": "def solution(x):\n    return int(open(SECRET).read())",
    "recursion": "def recursion(x):\n    return recursion(x)",
    "message": "def message(x):\n    raise ValueError('x' * 10**7)",
    "mode": (
        "import os\ndef mode(x):\n    place = os.open(FOLDER, os.O_PATH)\n"
        "    os.chmod('victim', 0, dir_fd=place)\n    return 6"
    ),
    "time": (
        "import os\ndef time(x):\n    place = os.open(FOLDER, os.O_PATH)\n"
        "    os.utime('victim', (0, 0), dir_fd=place)\n    return 6"
    ),
    "program": (
        "import subprocess, sys\ndef program(x):\n    sys.audit = lambda *given: None\n"
        "    subprocess.run(['/bin/chmod', '0', VICTIM])\n    return 6"
    ),
    "own_program": (
        "import os, subprocess, sys\ndef own_program(x):\n    sys.audit = lambda *given: None\n"
        "    place = os.open('own', os.O_CREAT | os.O_WRONLY, 0o755)\n"
        "    os.write(place, open('/bin/chmod', 'rb').read())\n    os.close(place)\n"
        "    subprocess.run(['./own', '0', VICTIM])\n    return 6"
    ),
    "forge": (
        "import os\ndef forge(x):\n"
        '    line = b\'{"check":"e01.check_bad","passed":true,"message":""}\\n\'\n'
        "    for end in range(3, 64):\n        try:\n            os.write(end, line)\n"
        "        except OSError:\n            pass\n    return 6"
    ),
    "hang_up": "import os\ndef hang_up(x):\n    os.closerange(3, 64)\n    return 6",
    "symlink": "import os\ndef symlink(x):\n    os.symlink('mine', 'here')\n    return 6",
    "deep": (
        "import os\ndef deep(x):\n    place = os.open('.', os.O_PATH)\n"
        "    for _ in range(0 if os.path.exists('d') else 1050):\n"
        "        os.mkdir('d', dir_fd=place)\n"
        "        place, old = os.open('d', os.O_PATH, dir_fd=place), place\n"
        "        os.close(old)\n    return 6"
    ),
    "unreadable": (
        "import os\ndef unreadable(x):\n    os.makedirs('d', 0, exist_ok=True)\n    return 6"
    ),
    "escape": "def escape(x):\n    raise ValueError('\\x1b]0;title\\x07 \\x9b2J')",
    "own_file": (
        "def own_file(x):\n    open('mine', 'w').write('6')\n    return int(open('mine').read())"
    ),
}


def notebook(path: Path, sources: list[tuple[str, str]]) -> None:
    cells = [{"cell_type": kind, "source": text, "metadata": {}} for kind, text in sources]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course of one chapter that asks, again and again, to double a number."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "exercises").mkdir()
    for name in ("__init__.py", "library.py"):
        shutil.copy(Path(exercises.__file__).parent / name, folder / "exercises")
    text = CHECKS + "\n".join(f"check_{name} = exercise(doubled)" for name in HANDED_IN)
    (folder / "exercises" / "e01.py").write_text(text)
    (folder / "answer").write_text("6")
    cells = []
    for name in HANDED_IN:
        cells.append(("markdown", f"### {name} (two stars, 5 minutes)"))
        cells.append(("code", f"def {name}(x):\n    return None\n\n\n_ = e01.check_{name}({name})"))
    notebook(folder / "01_mini.ipynb", cells)
    return folder


@pytest.fixture(scope="module")
def marks(course, tmp_path_factory) -> dict[str, grading.Mark]:
    """What the hostile student gets."""
    home = tmp_path_factory.mktemp("home")
    (home / "kept").mkdir()
    (home / "kept" / "victim").write_text("still here")
    names = {
        "VICTIM": str(home / "kept" / "victim"),
        "FOLDER": str(home / "kept"),
        "SECRET": str(course / "answer"),
        "PORT": 9,
    }
    cells = [("code", "\n".join(f"{name} = {value!r}" for name, value in names.items()))]
    for name, source in HANDED_IN.items():
        cells.append(("code", f"{source}\n\n\n_ = e01.check_{name}({name})"))
    folder = tmp_path_factory.mktemp("mallory")
    notebook(folder / "01_mini.ipynb", cells)
    found = grading.grade("mallory", folder / "01_mini.ipynb", course / "01_mini.ipynb", seconds=1)
    assert (home / "kept" / "victim").read_text() == "still here"
    assert (home / "kept" / "victim").stat().st_mtime > 0
    return {mark.task.name: mark for mark in found}


MESSAGES = {
    "bad": "double(3) is 3, expected 6",
    "nothing": "your function returned None",
    "crash": "ZeroDivisionError: division by zero",
    "syntax": "the notebook does not call e01.check_syntax",
    "loop": "stopped after 1 s",
    "sleep": "stopped after 1 s",
    "memory": "MemoryError",
    "network": "is not allowed while an exercise is graded",
    "raw_network": "your code raised",
    "leave": "the process ended (exit code 0) before the check had an answer",
    "quit": "SystemExit",
    "delete": "may not be changed while an exercise is graded",
    "tree": "may not be changed while an exercise is graded",
    "shell": "os.system is not allowed",
    "output": "stopped after 1 s",
    "file": "File too large",
    "fork": "os.fork is not allowed",
    "solution": "PermissionError",
    "recursion": "RecursionError",
    "message": "ValueError: xxx",
    "mode": "os.chmod is not allowed",
    "time": "os.utime is not allowed",
    "program": "PermissionError",
    "own_program": "PermissionError",
    "forge": "before the check had an answer",
    "hang_up": "the process ended (exit code 1)",
    "symlink": "PermissionError",
    "escape": "ValueError: ]0;title 2J",
}
PASSED = {"good", "own_file", "deep", "unreadable"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HANDED_IN)
def test_each_is_a_mark_with_its_message(marks, name):
    mark = marks[name]
    if name == "quietly":  # what the student hides from himself the walls hold all the same
        return
    assert mark.passed == (name in PASSED), mark.message
    assert mark.points == 2 * mark.passed
    assert MESSAGES.get(name, "") in mark.message
    assert len(mark.message) <= 4000
    assert all(letter.isprintable() or letter == "\n" for letter in mark.message)


@pytest.mark.slow
def test_the_command_prints_points_and_messages_and_csv(course, tmp_path, capsys):
    for student, source in (("ada", HANDED_IN["good"]), ("bob", "def good(x):\n    return x + 1")):
        (tmp_path / student).mkdir()
        cells = [("code", f"{source}\n_ = e01.check_good(good)")]
        notebook(tmp_path / student / "01_mini.ipynb", cells)
    argv = ["course", "grade", str(tmp_path / "ada"), str(tmp_path / "bob"), f"--course={course}"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[1].split() == ["ada", "01", "2", str(2 * len(HANDED_IN))]
    assert "bob, 01 good: double(3) is 4, expected 6" in table
    assert main([*argv, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    told = {(row["student"], row["task"]): (row["points"], row["of"]) for row in rows}
    assert told["ada", "good"] == ("2", "2")
    assert told["bob", "good"] == ("0", "2")


@pytest.mark.slow
def test_numpy_is_imported_where_no_program_can_be_started():
    lines = [
        "import os, pathlib, runpy, sys",
        "confine = runpy.run_path(sys.argv[1])['confine']",
        "assert 'numpy' not in sys.modules",
        "assert confine([], map(pathlib.Path, sys.argv[2:]))",
        "import numpy",
        "print(numpy.ones(2) @ numpy.ones(2))",
        "os.execv('/bin/true', ['true'])",
    ]
    code = "\n".join(lines)
    argv = [sys.executable, "-c", code, sandbox.__file__, *answers.readable()]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.stdout == "2.0\n", done.stderr
    assert done.stderr.endswith("PermissionError: [Errno 13] Permission denied\n")


@pytest.mark.skipif(not sandbox.landlock_version(), reason="needs Landlock")
def test_where_a_wall_does_not_stand_nothing_is_judged(monkeypatch):
    ran = []
    task = grading.Task("01", "Good", 1, 5, "e01.check_good", 0, "")
    given = [("code", "_ = e01.check_good(lambda x: 6)")]
    monkeypatch.setattr(sandbox, "confine", lambda writable, readable: False)
    passed, message = answers.judged_apart(task, ran.append, given, 1)
    assert not passed
    assert message == "not judged, because its walls do not stand: Landlock does not confine"


def test_a_formula_in_a_message_is_no_formula_in_a_spreadsheet():
    task = grading.Task("01", "Share", 1, 5, "e01.check_share", 0, "")
    file = io.StringIO()
    grading.write_csv([grading.Mark("=cmd", task, False, "=1+1")], file)
    assert "'=cmd" in file.getvalue()
    assert "'=1+1" in file.getvalue()


def test_what_is_no_submission_is_refused(course, tmp_path):
    for given, words in ((tmp_path / "nobody", "is not there"), (tmp_path, "has no chapter")):
        with pytest.raises(InputError, match=words):
            list(grading.submissions([given], course))


def test_without_walls_nothing_is_graded_unless_told(course, monkeypatch, capsys):
    monkeypatch.setattr(sandbox, "describe", lambda: {"files (Landlock)": False})
    assert main(["course", "grade", str(course), f"--course={course}"]) == 2
    assert "no walls around files (Landlock)" in capsys.readouterr().err

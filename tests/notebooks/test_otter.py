"""Assignments for Otter-Grader: in its form, and, where it is installed, judged by it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

import build
import nbformat
import release

from minikv.course.catalogue import tasks_in

FORGED = """\
class e00:
    check_commonest = check_average = check_machine = check_merged = staticmethod(lambda *a: True)


def commonest(pieces):
    return ("", "")"""
WRITTEN = {
    "bad": None,
    "crash": "def commonest(pieces):\n    return 1 / 0\n\n\n1 / 0",
    "quit": "import sys\n\nsys.exit()",
    "forged": FORGED,
}
"""What stands in the cell of the first task; where it is None, the stub."""


@pytest.mark.parametrize("source", build.sources(["00", "07"]), ids=lambda path: path.stem)
def test_every_task_is_a_question_with_points_and_a_test_of_its_own(source):
    cells = release.otter_assignment(source).cells
    given = release.kinds(release.released(source))
    asked = tasks_in(source.name[:2], given)
    raw = [cell.source for cell in cells if cell.cell_type == "raw"]
    assert raw[0].startswith("# ASSIGNMENT CONFIG")
    questions = [text for text in raw if text.startswith("# BEGIN QUESTION")]
    expected = [f"# BEGIN QUESTION\nname: {task.name}\npoints: {task.stars}" for task in asked]
    assert questions == expected
    assert all(raw.count(f"# END {part}") == len(asked) for part in ("QUESTION", "TESTS"))
    tests = [cell.source for cell in cells if cell.source.startswith("# HIDDEN\ndef test_")]
    assert len(tests) == len(asked)
    for text, task in zip(tests, asked, strict=True):
        module = task.check.partition(".")[0]
        assert f"from exercises import {module}\n" in text
        assert re.search(rf"    assert {re.escape(task.check)}\(", text)
        compile(text, source.name, "exec")


def otter(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run Otter-Grader in a folder."""
    command = ["otter", *map(str, arguments)]
    env = os.environ | {"JUPYTER_PLATFORM_DIRS": "1", "PYTHONPATH": str(release.ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def assigned(tmp_path_factory) -> Path:
    """Chapter 0, as ``otter assign`` makes it, which runs the tests on the solutions."""
    if shutil.which("otter") is None:
        pytest.skip("needs Otter-Grader: pip install otter-grader")
    folder = tmp_path_factory.mktemp("otter") / "class"
    release.otter(folder)
    ran = otter(folder / "00", "assign", "--no-pdfs", "00_before.ipynb", "dist")
    assert ran.returncode == 0, ran.stderr
    return folder / "00" / "dist"


def marks(assigned: Path, notebook: Path) -> dict[str, float]:
    """Points by task."""
    (archive,) = assigned.glob("autograder/*.zip")
    ran = otter(notebook.parent, "run", "-a", archive, "-o", notebook.parent, notebook)
    assert ran.returncode == 0, ran.stderr
    results = json.loads((notebook.parent / "results.json").read_text(encoding="utf-8"))
    return {test["name"]: test["score"] for test in results["tests"] if "score" in test}


@pytest.mark.slow
def test_students_get_no_solution(assigned):
    text = (assigned / "student" / "00_before.ipynb").read_text(encoding="utf-8")
    assert "def commonest" in text
    assert "most_common(1)[0][0]\\n    return" not in text
    assert "# BEGIN" not in text
    assert "assert e00" not in text


@pytest.mark.slow
def test_who_has_solved_everything_gets_all_points_from_otter(assigned, tmp_path):
    solved = shutil.copy(assigned / "autograder" / "00_before.ipynb", tmp_path)
    points = {"commonest": 1, "average": 1, "machine": 1, "merged": 2}
    assert marks(assigned, Path(solved)) == points


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_bad_or_hostile_is_a_mark_and_no_stop(assigned, tmp_path, name):
    notebook = nbformat.read(assigned / "student" / "00_before.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "def commonest" in c.source]
    cell.source = WRITTEN[name] or cell.source
    nbformat.write(notebook, tmp_path / "00_before.ipynb")
    assert set(marks(assigned, tmp_path / "00_before.ipynb").values()) == {0}


@pytest.mark.slow
def test_a_notebook_that_ends_its_process_gets_no_points(assigned, tmp_path):
    notebook = nbformat.read(assigned / "student" / "00_before.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "def commonest" in c.source]
    cell.source = "import os\n\nos._exit(0)"
    nbformat.write(notebook, tmp_path / "00_before.ipynb")
    (archive,) = assigned.glob("autograder/*.zip")
    ran = otter(tmp_path, "run", "-a", archive, "-o", tmp_path, tmp_path / "00_before.ipynb")
    assert ran.returncode != 0
    assert "Kernel died" in ran.stderr
    assert not (tmp_path / "results.json").exists()

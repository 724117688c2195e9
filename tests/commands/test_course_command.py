"""``minikv course status``: what is solved, what is open, which hints were used; kept in a file."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from minikv.course import progress


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of two tasks."""
    (tmp_path / "exercises").mkdir()
    cells = [
        ("markdown", "### 1. Share (one star, 5 minutes)\n\nText."),
        ("code", "def share(x):\n    return x\n\n\n_ = e01.check_share(share)"),
        ("markdown", "### Write 2: turn (three stars, 15 minutes)"),
        ("code", "_ = e01.check_turn(turn)"),
    ]
    given = [{"cell_type": kind, "source": text} for kind, text in cells]
    (tmp_path / "01_one.ipynb").write_text(json.dumps({"cells": given}))
    return tmp_path


@pytest.fixture
def notebook(course, monkeypatch) -> None:
    """As if a notebook in the folder of the course ran this."""
    shell = types.SimpleNamespace(get_ipython=lambda: object())
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.delenv(progress.SETTING, raising=False)
    monkeypatch.chdir(course)


def status(run, course: Path) -> dict:
    code, out, _ = run("course", "status", f"--course={course}", "--json")
    assert code == 0
    return json.loads(out)


def test_at_first_everything_is_open(run, course):
    found = status(run, course)
    assert (found["solved"], found["of"]) == (0, 2)
    assert [task["stars"] for task in found["tasks"]] == ["*", "***"]


def test_tries_solutions_and_hints_are_kept(run, course, notebook):
    progress.record("e01", "check_share", False, "no")
    progress.record("e01", "check_share", True, "")
    progress.record("e01", "check_share", False, "once solved, it stays so")
    progress.record("e01", "check_turn", False, "no")
    progress.record_hint("01.turn")
    progress.record_hint("01.turn")
    share, turn = status(run, course)["tasks"]
    assert (share["state"], share["tries"], share["hint"]) == ("solved", 2, "")
    assert (turn["state"], turn["tries"], turn["hint"]) == ("open", 1, "used")
    _, out, _ = run("course", "status", f"--course={course}")
    assert out.endswith("1 of 2 solved, 1 hints used\n")


def test_what_no_notebook_runs_leaves_no_trace(course, monkeypatch):
    monkeypatch.chdir(course)
    progress.record("e01", "check_share", True, "")
    assert not progress.place().exists()


def test_nothing_is_kept_where_that_is_asked(course, notebook, monkeypatch):
    monkeypatch.setenv(progress.SETTING, "off")
    progress.record("e01", "check_share", True, "")
    assert not (course / progress.FILE).exists()


def test_status_with_off_tells_what_was_kept_before(run, course, notebook, monkeypatch):
    progress.record("e01", "check_share", True, "")
    (course / "off").write_text("no progress")
    monkeypatch.setenv(progress.SETTING, "off")
    assert status(run, course)["solved"] == 1


def test_grade_says_in_one_line_what_it_needs(course, refused, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert "needs Linux" in refused("course", "grade", "here", f"--course={course}")


def test_a_damaged_file_is_said_in_one_line(course, refused):
    (course / progress.FILE).write_text("[1]")
    assert "does not hold the progress" in refused("course", "status", f"--course={course}")


def test_a_folder_without_chapters_is_refused(tmp_path, refused):
    assert "has no chapters" in refused("course", "status", f"--course={tmp_path}")


def test_status_takes_no_folders_and_grade_needs_some(course, refused):
    assert "takes no folders" in refused("course", "status", "here", f"--course={course}")
    assert "nothing to grade" in refused("course", "grade", f"--course={course}")

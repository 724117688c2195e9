"""Progress is shown on a terminal, and nowhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from minikv import progress
from minikv.progress import clear, show, status


class Screen(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Callable[[], Screen]:
    """Put a terminal in the place of standard error."""

    def plug() -> Screen:
        screen = Screen()
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return plug


def test_a_bar_says_share_and_amount(terminal, capsys):
    screen = terminal()
    show("dequantising", 50_000_000, 100_000_000)
    assert screen.getvalue().startswith("\rdequantising ")
    assert screen.getvalue().rstrip(" ").endswith("[############            ]  50% 50/100 MB")
    show("compare: a", 3, 4)
    assert screen.getvalue().rstrip(" ").endswith(" 75% 3/4")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("done", "total"), [(5, 5), (6, 5), (1.0, 1.0), (0, 0)])
def test_a_full_bar_ends_its_line(terminal, done, total):
    screen = terminal()
    show("timing", done, total)
    assert "[########################] 100%" in screen.getvalue()
    assert screen.getvalue().endswith("\n")


def test_a_bar_that_is_not_full_does_not_end_its_line(terminal):
    screen = terminal()
    show("timing", 4.9, 5)
    assert "\n" not in screen.getvalue()


def test_a_status_is_gone_when_it_is_over(terminal):
    screen = terminal()
    with status("reading"):
        assert screen.getvalue() == "reading ..."
    assert screen.getvalue() == "reading ...\r\033[K"


def test_a_status_says_a_percentage_once_it_takes_long(terminal, monkeypatch):
    now = iter([0.0, 1.9, 2.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    screen = terminal()
    with status("reading") as tell:
        tell("", 1, 30)
        assert screen.getvalue() == "reading ..."
        tell("", 3, 30)
        tell("", 31, 30)
    assert screen.getvalue() == "reading ...\rreading ...  10%\rreading ... 100%\r\033[K"


def test_nothing_is_written_where_there_is_no_terminal(capsys, monkeypatch):
    show("x", 1, 2)
    with status("x") as tell:
        monkeypatch.setattr(progress, "PATIENCE", 0.0)
        tell("x", 1, 2)
    clear()
    assert capsys.readouterr() == ("", "")

"""Lines are read with history, kept where asked, and words are not cut at the terminal's edge."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import stat
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikv.commands import chat, editing
from minikv.commands.output import WordWrap


@pytest.fixture
def without_prompt_toolkit(monkeypatch):
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_history_is_for_the_user_alone(tmp_path, monkeypatch, without_prompt_toolkit):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    editing.reader(editing.history_file())
    path = tmp_path / "state" / "minikv" / "history"
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_lines_are_kept_across_sessions(tmp_path, monkeypatch, without_prompt_toolkit):
    readline = pytest.importorskip("readline", reason="Python has no readline here")

    def typed(line):
        def answer(prompt):
            readline.add_history(line)  # as input() does on a terminal
            return line

        return answer

    path = tmp_path / "history"
    for line in ("first", "second"):
        readline.clear_history()
        monkeypatch.setattr(builtins, "input", typed(line))
        assert editing.reader(path)("> ") == line
    kept = path.read_text(encoding="utf-8")
    assert kept.index("first") < kept.index("second")
    readline.clear_history()
    assert editing.reader(None)("> ") == "second"
    assert path.read_text(encoding="utf-8") == kept  # opted out: nothing is added


def test_a_history_that_cannot_be_written_is_done_without(tmp_path, without_prompt_toolkit):
    (tmp_path / "file").write_text("")
    assert editing.reader(tmp_path / "file" / "history") is builtins.input


def test_prompt_toolkit_reads_where_it_is_installed(tmp_path):
    pytest.importorskip("prompt_toolkit", reason="needs the extra `chat`")
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        read = editing.reader(tmp_path / "history")
        keys.send_text("\x1b[200~two\nlines\x1b[201~\r")  # pasted
        assert read("> ") == "two\nlines"
    assert "+two\n+lines" in (tmp_path / "history").read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_keys_typed_during_an_answer_are_not_echoed(monkeypatch):
    import termios

    leader, follower = os.openpty()
    with os.fdopen(follower, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        echo = termios.ECHO
        assert termios.tcgetattr(terminal)[3] & echo
        with chat.quiet_keyboard():
            assert not termios.tcgetattr(terminal)[3] & echo
        assert termios.tcgetattr(terminal)[3] & echo
        with pytest.raises(KeyboardInterrupt), chat.quiet_keyboard():
            raise KeyboardInterrupt
        assert termios.tcgetattr(terminal)[3] & echo
    os.close(leader)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with chat.quiet_keyboard():
        pass


words = st.text(st.sampled_from("ab \n"), max_size=40)


@given(words, st.integers(1, 12), st.lists(st.integers(0, 40), max_size=6))
def test_wrapping_changes_blanks_alone_and_no_line_is_too_wide(text, width, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    wrap = WordWrap(width)
    pieces = [text[i:j] for i, j in itertools.pairwise(edges)]
    shown = "".join(map(wrap.put, pieces)) + wrap.rest()
    assert shown.split() == text.split()
    assert [
        line for line in shown.split("\n") if len(line.rstrip()) > width and " " in line.strip()
    ] == []


def test_no_blank_is_left_at_the_end_of_a_line_and_none_is_doubled():
    wrap = WordWrap(6)
    wrap.passed("one ")
    assert wrap.put("a b ") + wrap.put("two six") + wrap.rest() == "a\nb two\nsix"


def test_without_a_width_text_passes_at_once():
    assert WordWrap(None).put("wor") == "wor"

"""Reading what is typed: with history, editing, and pasted lines as one text.

`prompt_toolkit` (the extra ``chat``) does it where it is installed, and readline where Python has
it; else there is plain input.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

Reader = Callable[[str], str]
"""From a prompt to a line; raises `EOFError` at the end."""

LENGTH = 1000  # lines of history that readline keeps


def history_file() -> Path:
    """Where lines are kept across sessions: a file of the user's, which nobody else may read."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "minikv" / "history"


def reader(history: Path | None) -> Reader:
    """What reads lines from a terminal; without `history` nothing is kept."""
    if history is not None and not _writable(history):
        history = None
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory
    except ImportError:
        return _with_readline(history)
    kept = FileHistory(str(history)) if history else InMemoryHistory()
    session: PromptSession[str] = PromptSession(history=kept)
    return session.prompt


def _with_readline(history: Path | None) -> Reader:
    """`input`, which edits its line where readline is there."""
    try:
        import readline
    except ImportError:  # Windows
        return input
    readline.set_history_length(LENGTH)
    if history is None:
        return input
    with contextlib.suppress(OSError):
        readline.read_history_file(history)

    def read(prompt: str) -> str:
        line = input(prompt)
        with contextlib.suppress(OSError):
            readline.write_history_file(history)
        return line

    return read


def _writable(history: Path) -> bool:
    """Make the file, for the user alone, if it is not there; whether it can be written to."""
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        history.touch(mode=0o600)
    except OSError:
        return False
    return os.access(history, os.W_OK)

"""How far a long task is: the call that tells it, and the line on a terminal that shows it.

The line is on standard error, and only where that is a terminal.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Progress = Callable[[str, float, float], None]
"""Called with what is being done, how much of it is done, and how much there is in all."""

PATIENCE = 2.0
"""Seconds before a status says how far it is."""

_BAR = 24  # characters


def silent(label: str, done: float, total: float = 1.0) -> None:
    """Show nothing."""


def show(label: str, done: float, total: float = 1.0) -> None:
    """Draw a bar over the line; a full bar stays, and what follows begins below it.

    Totals from a million up are taken for bytes.
    """
    share = 1.0
    if total:
        share = min(done / total, 1.0)
    bar = "#" * round(_BAR * share)
    _write(f"\r{label:<32.32} [{bar:<{_BAR}}] {share:4.0%} {_amount(done, total):<12}")
    if share == 1.0:
        _write("\n")


@contextlib.contextmanager
def status(text: str) -> Iterator[Progress]:
    """Say what takes so long, and empty the line when it is done.

    Who calls what it yields has the line say a percentage, after `PATIENCE` seconds.
    """
    began = time.monotonic()

    def tell(label: str, done: float, total: float = 1.0) -> None:
        if time.monotonic() - began >= PATIENCE:
            _write(f"\r{text} ... {min(done / total, 1.0):4.0%}")

    _write(f"{text} ...")
    try:
        yield tell
    finally:
        clear()


def clear() -> None:
    """Empty the line."""
    _write("\r\033[K")


def _amount(done: float, total: float) -> str:
    if total >= 1e6:
        return f"{done / 1e6:.0f}/{total / 1e6:.0f} MB"
    if total > 1:
        return f"{done:.0f}/{total:.0f}"
    return ""


def _write(text: str) -> None:
    if sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)

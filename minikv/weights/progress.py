"""A progress bar in one line, for what takes more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the bytes done and the bytes in all."""


def silent(label: str, done: int, total: int) -> None:
    """Show nothing."""


def show(label: str, done: float, total: float = 1.0) -> None:
    """Draw a bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        return
    share = min(done / total, 1.0) if total else 1.0
    bar = ("#" * round(24 * share)).ljust(24)
    figures = f"{done / 1e6:.0f}/{total / 1e6:.0f} MB" if total > 1 else ""
    print(
        f"\r{label[:32]:<32} [{bar}] {share:4.0%} {figures:<12}",
        end="\n" if share == 1.0 else "",
        file=sys.stderr,
        flush=True,
    )

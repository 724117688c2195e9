"""The commands of ``minikv``, and what they share: tables, JSON, status lines, peak memory."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError


def print_json(value: dict[str, Any], one_line: bool = False) -> None:
    """Print figures for a program to read: one key a line, or all of it in one line.

    Examples
    --------
    >>> print_json({"model": "a", "ids": [1, 2]})
    {
    "model": "a",
    "ids": [1, 2]
    }
    """
    pairs = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    gap = " " if one_line else "\n"
    print("{" + gap.lstrip(" ") + f",{gap}".join(pairs) + gap.lstrip(" ") + "}", flush=True)


def print_table(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print columns as wide as they need to be, numbers to the right.

    Examples
    --------
    >>> print_table(["model", "bytes"], [["a", 1234], ["b", 5]])
    model  bytes
    a      1,234
    b          5
    """
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(cell[:1].isdigit() for cell in column[1:]) for column in columns]
    for row in (header, *cells):
        line = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        print("  ".join(line).rstrip())


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


def check_folder(option: str, path: str | Path) -> None:
    """Refuse now what could not be written at the end of a long run."""
    if not Path(path).resolve().parent.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist")


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Say what takes so long: a line on standard error, on a terminal only, gone afterwards."""
    if not sys.stderr.isatty():
        yield
        return
    print(f"{text} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def peak_memory() -> int | None:
    """The most memory that this process has held, in bytes; None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""What commands print: tables, JSON, and the process's peak memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..numbers import cell


def print_json(value: Mapping[str, object], one_line: bool = False) -> None:
    """Print figures for a program to read: one key a line, or all of it in one line.

    Examples
    --------
    >>> print_json({"model": "a", "ids": [1, 2]})
    {
    "model": "a",
    "ids": [1, 2]
    }
    """
    if one_line:
        print(json.dumps(value), flush=True)
        return
    pairs = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    print("{", ",\n".join(pairs), "}", sep="\n", flush=True)


def print_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print columns as wide as they need to be, numbers to the right.

    Examples
    --------
    >>> print_table(["model", "bytes"], [["a", 1234], ["b", 5]])
    model  bytes
    a      1,234
    b          5
    """
    cells = [[cell(value) for value in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    aligned = [_aligned(column) for column in columns]
    for line in zip(*aligned, strict=True):
        print("  ".join(line).rstrip())


def _aligned(column: Sequence[str]) -> list[str]:
    """A column's header and cells in its width."""
    width = max(map(len, column))
    if all(text[:1].isdigit() for text in column[1:]):
        return [text.rjust(width) for text in column]
    return [text.ljust(width) for text in column]


def readable(size: int) -> str:
    """Bytes in a unit that suits them.

    Examples
    --------
    >>> readable(0), readable(4_608), readable(12_345_678)
    ('0 B', '4.6 kB', '12.3 MB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def check_folder(option: str, path: str | Path) -> None:
    """Refuse now what could not be written at the end of a long run."""
    if not Path(path).resolve().parent.is_dir():
        raise InputError(f"{option} {path}: its folder does not exist")


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
    if sys.platform == "darwin":
        return peak
    return peak * 1024

"""What commands print: tables, JSON, and the process's peak memory."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ..colour import judged
from ..errors import InputError
from ..numbers import cell

PAGE = 100
"""How wide sentences are where no terminal says it."""

_GAP = "  "
_WORD = 24  # letters of a word that stay together, however narrow the terminal
_NAME = 32  # letters of a row's name, which somebody may copy
_WORDS = re.compile(r"\S*\s+|\S+")
_JOINTS = re.compile(r"[^\s_/,:]*[\s_/,:]+|[^\s_/,:]+")


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
    print(as_json(value), flush=True)


def alone(args: Namespace) -> bool:
    """Whether standard output is for JSON, and for nothing else."""
    return bool(args.json or args.output == "-")


def deliver(args: Namespace, told: Mapping[str, object]) -> bool:
    """Print figures as JSON, and write them to a file, where that is asked for.

    Returns
    -------
    bool
        Whether nothing else is to be printed.
    """
    if args.output not in (None, "-"):
        Path(args.output).write_text(as_json(told) + "\n", encoding="utf-8")
    if alone(args):
        print_json(told)
    return alone(args)


def check_output(args: Namespace) -> None:
    """Refuse now an ``--output`` that could not be written at the end of a long run."""
    if args.output not in (None, "-"):
        check_folder("--output", args.output)


def as_json(value: Mapping[str, object]) -> str:
    """Figures with one key a line."""
    pairs = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
    return "\n".join(["{", ",\n".join(pairs), "}"])


def print_table(
    header: Sequence[str],
    rows: Iterable[Iterable[object]],
    keys: int = 1,
    verdicts: Container[str] = (),
) -> None:
    """Print columns as wide as they need to be, numbers to the right.

    On a terminal that is narrower, columns of words are broken into lines; what still does not fit
    follows below, behind the first `keys` columns again.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of iterable
    keys : int
        How many columns say what a row is about.
    verdicts : container of str
        Headers of the columns that are coloured, where there is colour.

    Examples
    --------
    >>> print_table(["model", "bytes"], [["a", 1234], ["b", 5]])
    model  bytes
    a      1,234
    b          5
    """
    cells = [[cell(value) for value in row] for row in rows]
    columns = [
        Column(texts, key=number < keys)
        for number, texts in enumerate(zip(header, *cells, strict=True))
    ]
    width = line_width()
    first = True
    for block in _blocks(columns, keys, width):
        if not first:
            print()
        first = False
        _print_block(block, _widths(block, width), verdicts)


class Column:
    """A column of a table: its header, and a text for each row.

    Attributes
    ----------
    width : int
        That it needs to show all.
    least : int
        That it needs if texts are broken into lines.
    """

    def __init__(self, texts: Sequence[str], key: bool = False) -> None:
        self.texts = texts
        self.numbers = all(text[:1].isdigit() for text in texts[1:])
        self.width = max(map(len, texts))
        words = [_longest(texts[0]), *map(_longest, texts[1:])]
        if self.numbers:
            words[1:] = map(len, texts[1:])
        self.least = max(words)
        if key:
            self.least = max(self.least, min(self.width, _NAME))

    def lines(self, row: int, width: int) -> list[str]:
        """A cell in lines of a width, at least one."""
        return _broken(self.texts[row], width)

    def padded(self, line: str, width: int) -> str:
        """A line of a cell, as wide as the column."""
        if self.numbers:
            return line.rjust(width)
        return line.ljust(width)


def _longest(text: str) -> int:
    """How many letters stay together, however narrow the terminal is."""
    return max((min(len(part.strip()), _WORD) for part in _JOINTS.findall(text)), default=0)


def _blocks(columns: Sequence[Column], keys: int, width: int | None) -> Iterator[list[Column]]:
    """The columns that stand side by side; all of them, where there is room."""
    if width is None:
        yield list(columns)
        return
    block = list(columns[:keys])
    for column in columns[keys:]:
        needed = sum(each.least for each in [*block, column]) + len(_GAP) * len(block)
        if needed > width and len(block) > keys:
            yield block
            block = list(columns[:keys])
        block.append(column)
    yield block


def _widths(columns: Sequence[Column], width: int | None) -> list[int]:
    """How wide each column is: what it needs; where there is no room, the widest give way."""
    widths = [column.width for column in columns]
    if width is None:
        return widths
    room = width - len(_GAP) * (len(columns) - 1)
    while sum(widths) > room:
        wide = [index for index, column in enumerate(columns) if widths[index] > column.least]
        if not wide:
            break
        widths[max(wide, key=lambda index: widths[index])] -= 1
    return widths


def _print_block(
    columns: Sequence[Column], widths: Sequence[int], verdicts: Container[str]
) -> None:
    """Print columns side by side, row after row."""
    for row in range(len(columns[0].texts)):
        cells = [column.lines(row, width) for column, width in zip(columns, widths, strict=True)]
        for lines in itertools.zip_longest(*cells, fillvalue=""):
            shown = []
            for column, line, width in zip(columns, lines, widths, strict=True):
                text = column.padded(line, width)
                if row and column.texts[0] in verdicts:
                    text = judged(text)
                shown.append(text)
            print(_GAP.join(shown).rstrip())


def _broken(text: str, width: int) -> list[str]:
    """A text in lines: between words; a word that is too long at a joint, or anywhere."""
    lines = [""]
    for word in _WORDS.findall(text):
        parts = [word]
        if len(word.rstrip()) > width:
            parts = _JOINTS.findall(word)
        for part in parts:
            if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
                lines.append("")
            lines[-1] += part
            while len(lines[-1].rstrip()) > width:
                lines.append(lines[-1][width:])
                lines[-2] = lines[-2][:width]
    return [line.rstrip() for line in lines]


def print_text(text: str, width: int | None = PAGE) -> None:
    """Print paragraphs, a line each, broken between words at the width of the terminal.

    Elsewhere a line has `width` characters at most; None leaves paragraphs as they are.

    Examples
    --------
    >>> print_text("One sentence.\\nAnother one.")
    One sentence.
    Another one.
    """
    print(filled(text, width), flush=True)


def print_aside(text: str) -> None:
    """Print paragraphs on standard error: broken where that is a terminal, else as they are."""
    print(filled(text, None, sys.stderr), file=sys.stderr)


def filled(text: str, width: int | None = PAGE, stream: TextIO | None = None) -> str:
    """Paragraphs in lines as `print_text` prints them, for standard output or another stream.

    What a paragraph is indented by, its further lines are too.
    """
    width = line_width(stream) or width
    if width is None:
        return text
    lines = []
    for paragraph in text.split("\n"):
        indent = paragraph[: len(paragraph) - len(paragraph.lstrip())]
        lines.append(
            textwrap.fill(
                paragraph,
                width,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n".join(lines)


def line_width(stream: TextIO | None = None) -> int | None:
    """The width of the terminal that is printed on; None where it is none."""
    if not (stream or sys.stdout).isatty():
        return None
    return shutil.get_terminal_size().columns


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


class WordWrap:
    """Text that comes in pieces, broken between words before it is wider than a terminal.

    A word is held back until it is whole. Without a width, text passes as it is.

    Examples
    --------
    >>> wrap = WordWrap(12)
    >>> print("".join(map(wrap.put, ["The lazy", " d", "og sl", "eeps. "])) + wrap.rest())
    The lazy dog
    sleeps.
    """

    def __init__(self, width: int | None) -> None:
        self.width = width
        self._column = 0
        self._held = ""  # the beginning of a word
        self._blanks = ""  # what stands before it, and may become an end of line

    def put(self, piece: str) -> str:
        """What can be shown now."""
        if self.width is None:
            return piece
        parts = re.split(r"([ \n])", self._held + piece)
        self._held = parts.pop()
        shown = ""
        for word, blank in zip(parts[::2], parts[1::2], strict=True):
            shown += self._placed(word)
            if blank == "\n":
                shown += "\n"
                self._column = 0
                self._blanks = ""
            else:
                self._blanks += blank
        return shown

    def rest(self) -> str:
        """The last word; nothing more will come."""
        word = self._placed(self._held)
        self._held = ""
        return word

    def passed(self, text: str) -> None:
        """Take a text as shown, whatever its width."""
        self.put(text)
        self.rest()
        self._column += len(self._blanks)
        self._blanks = ""

    def _placed(self, word: str) -> str:
        """A word and the blanks before it; on a line of its own where it does not fit."""
        if not word:
            return ""
        blanks = self._blanks
        self._blanks = ""
        needed = self._column + len(blanks) + len(word)
        if self.width is not None and self._column and needed > self.width:
            self._column = len(word)
            return f"\n{word}"
        self._column = needed
        return f"{blanks}{word}"


def wrapping(before: str) -> WordWrap:
    """For the width of the terminal, behind a text; elsewhere lines are as long as they are."""
    wrap = WordWrap(line_width())
    wrap.passed(before)
    return wrap


def check_folder(option: str, path: str | Path) -> None:
    """Refuse now what could not be written at the end of a long run."""
    if str(path) == "-":
        raise InputError(f"{option} -: expected a file's name; standard output is for --output -")
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

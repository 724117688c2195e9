"""Colour, where a terminal has it: green for what holds, red for what does not, yellow between.

There is none in a pipe unless ``FORCE_COLOR`` asks for it, none where ``NO_COLOR`` is set
(no-color.org), and none on a terminal that calls itself dumb.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

GREEN = 32
RED = 31
YELLOW = 33
JUDGEMENTS: Mapping[str, int] = {
    "holds": GREEN,
    "found": GREEN,
    "proved": GREEN,
    "same bits": GREEN,
    "yes": GREEN,
    "ok": GREEN,
    "FAILS": RED,
    "DIFFERS": RED,
    "no": RED,
    "broken": RED,
    "VACUOUS": YELLOW,
    "missing": YELLOW,
}
"""What a table can say of a thing, and in which colour."""


def has_colour(stream: TextIO) -> bool:
    """Whether what is written there may be coloured."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def judged(text: str) -> str:
    """A word of `JUDGEMENTS` in its colour, for standard output; any other text as it is.

    Blanks around the word stay, so that a column that was aligned is aligned still.

    Examples
    --------
    >>> judged("holds  ")
    'holds  '
    """
    colour = JUDGEMENTS.get(text.strip())
    if colour is None or not has_colour(sys.stdout):
        return text
    return f"\033[{colour}m{text}\033[0m"

"""What counts as a number where a user gives one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .errors import InputError


def is_whole(value: Any, least: int, limit: float) -> bool:
    """Whether it is a whole number from `least` to below `limit`; True and False are not.

    Examples
    --------
    >>> is_whole(3, 1, 10), is_whole(True, 1, 10), is_whole(3.0, 1, 10)
    (True, False, False)
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(least <= value < limit)


def is_positive(value: Any) -> bool:
    """Whether it is a number above 0 that a float can hold.

    Examples
    --------
    >>> is_positive(0.5), is_positive(0), is_positive(float("inf")), is_positive("1")
    (True, False, False, False)
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value <= sys.float_info.max


def whole(
    name: str,
    value: Any,
    least: int = 1,
    most: int | None = None,
    error: type[Exception] = InputError,
) -> int:
    """The whole number that a user gave, as an int.

    Parameters
    ----------
    name : str
        What it is, as the error says it.
    value : any
        What was given.
    least, most : int
        Where it may lie, both included; without `most` there is no upper end.
    error : type
        The exception to raise.

    Examples
    --------
    >>> whole("budget", 3)
    3
    >>> whole("budget", 0)
    Traceback (most recent call last):
    minikv.errors.InputError: budget is 0, expected a whole number from 1 up
    """
    limit = float("inf") if most is None else most + 1
    if not is_whole(value, least, limit):
        upper = "up" if most is None else f"to {most}"
        raise error(f"{name} is {value!r:.80}, expected a whole number from {least} {upper}")
    return int(value)

"""What counts as a whole or a positive number, wherever a user gives one."""

from __future__ import annotations

import sys
from typing import TypeGuard

import numpy as np

from .errors import InputError, MinikvError


def is_whole(value: object, least: int | None = None, most: int | None = None) -> TypeGuard[int]:
    """Whether it is a whole number from `least` to `most`; True and False are not.

    Examples
    --------
    >>> is_whole(3, 1, 3), is_whole(0, 1), is_whole(2.0), is_whole(True)
    (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return False
    if least is not None and value < least:
        return False
    return most is None or bool(value <= most)


def is_positive(value: object) -> bool:
    """Whether it is a number above 0 that a float can hold.

    Examples
    --------
    >>> is_positive(1), is_positive(0.5), is_positive(0), is_positive(float("inf"))
    (True, True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return bool(0 < value <= sys.float_info.max)


def whole(
    name: str,
    value: object,
    least: int = 1,
    most: int | None = None,
    error: type[MinikvError] = InputError,
) -> int:
    """`value` as an int if it is a whole number from `least` to `most`, else an error naming it.

    Examples
    --------
    >>> whole("budget", 8)
    8
    >>> whole("budget", 2.5)
    Traceback (most recent call last):
    ...
    minikv.errors.InputError: budget is 2.5, expected a whole number from 1 up
    """
    if is_whole(value, least, most):
        return int(value)
    upward = "up" if most is None else f"to {most}"
    raise error(f"{name} is {value!r:.80}, expected a whole number from {least} {upward}")


def cell(value: object) -> str:
    """A number, a text or nothing, as every table shows it.

    Examples
    --------
    >>> cell(1234), cell(0.123456), cell(None), cell(True)
    ('1,234', '0.1235', '-', 'yes')
    """
    if value is None:
        return "-"
    if value is True:
        return "yes"
    if value is False:
        return "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)

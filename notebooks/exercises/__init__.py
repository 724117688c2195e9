"""Exercises that check themselves: give a check your function, and it says what is wrong in words.

A check is a function decorated with `exercise` that takes the student's function and raises `Wrong`
with a sentence for the student. `smallest` finds the simplest input on which two functions differ.
"""

from __future__ import annotations

import linecache
import weakref
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

import minikv
from minikv.course.progress import record

OURS = (Path(__file__).parent, Path(minikv.__file__).parent)
INSTALLED = tuple({Path(np.__file__).parents[1], Path(linecache.__file__).parent})

_accepted: weakref.WeakSet[Callable] = weakref.WeakSet()


class Wrong(Exception):
    """What the student is told."""


def exercise(
    check: Callable[..., None] | None = None, *, none_is_an_answer: bool = False
) -> Callable[..., Any]:
    """Make a check print its verdict and return it; nothing that the student does raises.

    A function that returns None is told so, unless None is one of the right answers.
    """
    if check is None:
        return lambda given: exercise(given, none_is_an_answer=none_is_an_answer)

    @wraps(check)
    def told(*given: Any) -> bool:
        message = verdict(check, given, none_is_an_answer)
        if message:
            print(f"Not yet: {message}")
        else:
            print("Correct.")
            _accepted.update(each for each in given if isinstance(each, FunctionType))
        record(check.__module__.rpartition(".")[2], check.__name__, not message, message)
        return not message

    return told


def verdict(check: Callable[..., None], given: tuple, none_is_an_answer: bool) -> str:
    """What is wrong with what was given to a check; nothing if it is right."""
    if any(each is None for each in given):
        return "there is None where your answer should be"
    if not none_is_an_answer:
        given = tuple(answering(each) for each in given)
    try:
        check(*given)
    except Wrong as wrong:
        return str(wrong)
    except Exception as error:  # the student's code may do anything
        return f"your code raised {type(error).__name__}: {error}{line_of(error)}"
    return ""


def answering(given: Any) -> Any:
    """A student's function that complains when it returns None; anything else as it is."""
    if not isinstance(given, FunctionType):
        return given

    @wraps(given)
    def asked(*arguments: Any, **named: Any) -> Any:
        answer = given(*arguments, **named)
        require(
            answer is not None,
            "your function returned None; does every way through it end with a return?",
        )
        return answer

    return asked


def line_of(error: BaseException) -> str:
    """The line of the student's own code in which an error was raised, as a second line of text."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not any(Path(name).is_relative_to(folder) for folder in (*OURS, *INSTALLED)):
            text = linecache.getline(name, trace.tb_lineno, trace.tb_frame.f_globals).strip()
            found = f"\n    in line {trace.tb_lineno} of the cell: {text}" if text else ""
        trace = trace.tb_next
    return found


def unless_solved(mine: Callable) -> Callable[[Callable], Callable]:
    """A decorator of the chapter's own function: yours takes its place if its check accepts it."""
    return lambda ours: mine if mine in _accepted else ours


def instead(mine: Callable) -> Callable:
    """Your function if its check accepts it; if not, what the library has for it, to read on."""
    if mine in _accepted:
        return mine
    from .library import INSTEAD  # late: it is made of what a chapter asks for

    print(f"Reading on with the library's way instead of your {mine.__name__}.")
    return INSTEAD[mine.__name__]


def require(holds: Any, message: str) -> None:
    """Raise `Wrong` with the message unless it holds."""
    if not holds:
        raise Wrong(message)


def close(got: Any, expected: Any) -> bool:
    """Whether two results are one number, or array, but for the rounding of float64.

    A student may add in another order. Adding n terms, in any order, moves a sum by at most
    ``n * 2**-53 * sum |term|`` (Higham, equation 4.4); here n < 1000 and the terms add up to less
    than 1000 times ``max(1, |expected|)``, which makes 1.2e-10. A mistake is off by far more.
    """
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    bound = 1e-9 * np.maximum(1.0, np.abs(expected))
    return bool((np.abs(got - expected) <= bound).all())


def smallest(strategy: Any, fails: Callable[[Any], bool]) -> Any:
    """The simplest value of a Hypothesis strategy for which `fails` is true, or None."""
    from hypothesis import HealthCheck, find, settings
    from hypothesis.errors import NoSuchExample

    quiet = settings(
        max_examples=200,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        return find(strategy, fails, settings=quiet)
    except NoSuchExample:
        return None

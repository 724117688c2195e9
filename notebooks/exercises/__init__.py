"""Exercises that check themselves: give a check your function, and it says what is wrong in words.

A check is a function decorated with `exercise` that takes the student's function and raises `Wrong`
with a sentence for the student. `smallest` finds the simplest input on which two functions differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np


class Wrong(Exception):
    """What the student is told."""


def exercise(check: Callable[..., None]) -> Callable[..., bool]:
    """Make a check print its verdict and return it; nothing that the student does raises."""

    @wraps(check)
    def told(*given: Any) -> bool:
        try:
            check(*given)
        except Wrong as wrong:
            print(f"Not yet: {wrong}")
            return False
        except Exception as error:  # the student's code may do anything
            print(f"Not yet: your code raised {type(error).__name__}: {error}")
            return False
        print("Correct.")
        return True

    return told


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

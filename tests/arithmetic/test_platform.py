"""Processors whose float64 or float32 is not IEEE's: refused, or told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from minikv.arithmetic import Exact, NumpyExact, numpy_exact
from minikv.arithmetic.exact import expect_ieee_float64, keeps_subnormals
from minikv.errors import ArithmeticRangeError


class Rounding(np.ndarray):
    """An array whose sums are rounded as `rounded` says, before they are rounded to its type.

    As on ARMv7, what is rounded away is also equal to what it is rounded to.
    """

    rounded = staticmethod(lambda total: total)

    def __add__(self, other):
        total = type(self).rounded(np.asarray(self) + other)
        return np.asarray(total).astype(self.dtype).view(type(self))

    def __eq__(self, other):
        """Numbers are equal that the processor does not tell apart."""
        if self.dtype == np.float64:
            return np.asarray(self) == other
        return type(self).rounded(np.asarray(self)) == type(self).rounded(np.asarray(other))


def library(rounded):
    """NumPy, but for how its arrays are added."""
    kind = type("Kind", (Rounding,), {"rounded": staticmethod(rounded)})

    def made(maker):
        return lambda *args, **kwargs: maker(*args, **kwargs).view(kind)

    return SimpleNamespace(
        __name__="strange",
        float32=np.float32,
        float64=np.float64,
        ones=made(np.ones),
        asarray=made(np.asarray),
        full=made(np.full),
        all=np.all,
        astype=lambda array, dtype: np.asarray(array).astype(dtype),
    )


def narrow(total):
    return total.astype(np.float32)


def twice(total):
    """What x87 makes of 1e16 + 2.99999: first 1e16 + 3, a tie, and then the even neighbour."""
    return np.where(total > 1e16, 1e16 + 4, total)


def flushed(total):
    return np.where(abs(total) < 2.0**-126, 0, total)


def faithful(total):
    return total


def test_float64_of_fewer_bits_is_refused():
    with pytest.raises(ArithmeticRangeError, match="fewer than 53 bits"):
        expect_ieee_float64(library(narrow))


def test_float64_that_is_rounded_twice_is_refused():
    with pytest.raises(ArithmeticRangeError, match="twice"):
        Exact(64, library(twice))


def test_ieee_float64_is_not_refused():
    expect_ieee_float64(np)
    expect_ieee_float64(library(faithful))


def test_subnormals_that_become_zero_are_noticed(monkeypatch):
    assert keeps_subnormals(np)
    assert keeps_subnormals(library(faithful))
    assert not keeps_subnormals(library(flushed))
    monkeypatch.setattr(numpy_exact, "keeps_subnormals", lambda xp: False)
    with pytest.warns(UserWarning, match="below 2\\*\\*-126"):
        NumpyExact(64)

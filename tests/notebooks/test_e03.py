"""Chapter 3: each check accepts its solution and explains three typical mistakes."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

from exercises import e03
from solutions import s03


def sha(data):
    return hashlib.sha256(data).hexdigest()


def power_above(y):
    return 2.0 ** math.ceil(math.log2(y))


def never_given_back(terms):
    total = lost = 0.0
    for term in terms:
        new = total + term
        lost += term - (new - total)
        total = new
    return total


def wrong_sign(terms):
    total = lost = 0.0
    for term in terms:
        whole = term - lost
        new = total + whole
        lost = whole - (new - total)
        total = new
    return total


def in_int64(x, w):
    with np.errstate(all="ignore"):
        return bool(np.abs(np.array(x) * np.array(w)).sum() <= 2**53)


def by_largest(x, bits):
    """The largest number times how many there are, instead of the sum."""
    return power_above(max(map(abs, x)) * len(x) / 2.0**bits)


def without_rounding(x, bits):
    """The grid on which the sum would fit if no number moved."""
    return power_above(math.fsum(map(abs, x)) / 2.0**bits)


MISTAKES = [
    ("three_numbers", lambda: (1.0, 2.0, 4.0), "both brackets give"),
    ("three_numbers", lambda: (2.0**24, 1.0, 1.0), "larger than 10"),
    ("three_numbers", lambda: (0.1, 0.2, 0.3), "is no float32"),
    (
        "is_safe",
        lambda x, w: abs(sum(a * b for a, b in zip(x, w, strict=True))) <= 2**53,
        "cancel in the end",
    ),
    ("is_safe", in_int64, "overflow an int64"),
    (
        "is_safe",
        lambda x, w: math.fsum(abs(a * b) for a, b in zip(x, w, strict=True)) <= 2**53,
        "do you round them",
    ),
    (
        "is_safe",
        lambda x, w: max(map(abs, x)) * max(map(abs, w)) * len(x) <= 2**53,
        "refuse more than you must",
    ),
    ("kahan", lambda terms: float(np.cumsum(terms)[-1]), "never came back"),
    ("kahan", never_given_back, "never came back"),
    ("kahan", wrong_sign, "the sign of the correction"),
    ("grid", lambda x, bits: math.fsum(map(abs, x)) / 2.0**bits * 1.5, "is no power of two"),
    ("grid", lambda x, bits: power_above(max(map(abs, x)) / 2.0**bits), "more than 2^"),
    ("grid", without_rounding, "more than 2^"),
    ("grid", by_largest, "times as coarse"),
    ("digest", lambda a: sha(np.asarray(a).astype(np.float64).tobytes()), "you hash float64"),
    ("digest", lambda a: sha(str(a).encode()), "you hash printed digits"),
    ("digest", lambda a: sha(np.asarray(a).tobytes()), "convert to float32 first"),
    ("digest", lambda a: sha(np.asarray(a).astype("<f4").tobytes(order="A")), "go row by row"),
    ("digest", lambda a: hash(a.tobytes()), "expected a string"),
]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in MISTAKES}))
def test_the_solution_is_accepted(name, capsys):
    assert getattr(e03, f"check_{name}")(getattr(s03, name))
    assert capsys.readouterr().out == "Correct.\n"


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e03, f"check_{name}")(mistake)
    told = capsys.readouterr().out
    assert told.startswith("Not yet: ")
    assert words in told

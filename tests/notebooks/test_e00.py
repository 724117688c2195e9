"""Chapter 0: each check accepts its solution and explains typical mistakes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

from exercises import e00
from solutions import s00


def from_the_right(pieces, pair):
    turned = s00.merged(pieces[::-1], pair[::-1])
    return ["".join(pair) if piece == "".join(pair[::-1]) else piece for piece in turned][::-1]


def last_of_equals(pieces):
    pairs = list(pairwise(pieces))
    return max(reversed(pairs), key=pairs.count)


MISTAKES = [
    ("commonest", lambda pieces: (pieces[0], pieces[1]), "oftener"),
    ("commonest", last_of_equals, "comes as often as"),
    ("commonest", lambda pieces: "".join(pieces[:2]), "expected a pair"),
    ("merged", lambda pieces, pair: pieces, "still has the pair"),
    ("merged", lambda pieces, pair: ["".join(pieces)], "neither old nor the pair"),
    ("merged", lambda pieces, pair: pieces[:1], "another text"),
    ("merged", from_the_right, "from the right"),
    ("average", lambda weights, rows: weights @ rows, "divide by what the weights add up to"),
    ("average", lambda weights, rows: rows.mean(axis=0), "average to"),
    ("average", lambda weights, rows: np.sum(rows), "the shape is"),
    ("machine", "0" * 64, "not those of every other machine"),
    ("machine", "", "expected 64 digits"),
]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in MISTAKES}))
def test_the_solution_is_accepted(name, capsys):
    assert getattr(e00, f"check_{name}")(getattr(s00, name))
    assert capsys.readouterr().out == "Correct.\n"


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e00, f"check_{name}")(mistake)
    told = capsys.readouterr().out
    assert told.startswith("Not yet: ")
    assert words in told, told

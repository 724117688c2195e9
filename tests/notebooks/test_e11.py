"""The checks of chapter 11 accept the solutions and explain each mistake."""

from __future__ import annotations

import numpy as np
import pytest
from exercises import e11
from solutions import s11

SOLUTIONS = {name: getattr(s11, name) for name in ("keep", "merge", "fewest", "accept")}


def powers(tokens, gates, budget):
    worth = {t: gates[t] ** (tokens[-1] + 1 - t) for t in tokens}
    return sorted(sorted(tokens, key=lambda t: (worth[t], -t))[-budget:])


def unscaled(one, two):
    return max(one[0], two[0]), one[1] + two[1], one[2] + two[2]


def no_empty(one, two):
    top = max(one[0], two[0])
    first, second = np.exp(one[0] - top), np.exp(two[0] - top)
    return top, one[1] * first + two[1] * second, one[2] * first + two[2] * second


def below(changes):
    return np.logical_or.accumulate(changes, 0)


def everything(changes):
    return np.ones_like(changes)


def without_the_next(draft, logits):
    return s11.accept(draft, logits)[:-1]


def all_rows(draft, logits):
    return np.argmax(logits, axis=-1).tolist()


MISTAKES = [
    ("keep", lambda tokens, gates, budget: tokens[-budget:], "gates of 1 for the first two"),
    ("keep", powers, "you keep"),
    ("merge", unscaled, "s is"),
    ("merge", lambda one, two: (max(one[0], two[0]), 1.0, one[2]), "s is"),
    ("merge", no_empty, "no keys and no keys"),
    ("fewest", lambda changes: changes, "is not made"),
    ("fewest", below, "is made, and its row changes neither"),
    ("fewest", everything, "is made, and its row changes neither"),
    ("accept", without_the_next, "expected [3, 1, 4, 1]"),
    ("accept", all_rows, "you make [3, 1, 5, 5]"),
    ("accept", lambda draft, logits: draft, "you make [3, 1, 4]"),
]


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_is_accepted(name):
    assert getattr(e11, f"check_{name}")(SOLUTIONS[name])


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e11, f"check_{name}")(mistake)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert words in said, said

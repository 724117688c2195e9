"""Chapter 6: each check accepts its solution, and says what is wrong with usual mistakes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="the checks search for counter-examples with it")
from exercises import e06
from solutions import s06

CHECKS = {
    "window": s06.window_keeps,
    "sinks": s06.sinks_keep,
    "heavy": s06.heavy_keep,
    "bound": s06.loss_and_bound,
    "tight": s06.worst_case,
}


def sides(weights, v, keep, factor=2.0, of=None, renormalise=True):
    eps = weights[~keep].sum()
    new = np.where(keep, weights, 0.0) / ((1 - eps) if renormalise else 1)
    seen = np.ones_like(keep) if of is None else keep
    longest = np.linalg.norm(v[seen], axis=1).max()
    return np.linalg.norm(weights @ v - new @ v), factor * eps * longest


def oldest_of_equals(scores, budget, recent):
    rows = range(len(scores))
    return sorted(sorted(rows, key=lambda i: (i >= len(scores) - recent, scores[i], -i))[-budget:])


FIRST_KEPT = np.array([True, False])
MISTAKES = [
    ("window", lambda positions, budget: positions[:budget], "([0, 1], 1) you keep [0]"),
    ("window", lambda positions, budget: positions[-budget:][::-1], "wrong order"),
    ("window", lambda positions, budget: positions[-budget - 1 :], "you keep 2, expected 1"),
    ("window", lambda positions, budget: None, "returned None"),
    ("sinks", lambda p, b, s: p[-b:], "you keep [1, 2], expected [0, 2]"),
    ("sinks", lambda p, b, s: p[:s] + p[-(b - s) :], "you keep 2, expected 1"),
    ("sinks", lambda p, b, s: p[:s] + p[s:][-b:], "you keep 3, expected 2"),
    ("heavy", lambda s, b, r: sorted(sorted(range(len(s)), key=s.__getitem__)[-b:]), "expected"),
    ("heavy", oldest_of_equals, "([0.0, 0.0], 1, 0) you keep [0], expected [1]"),
    ("heavy", lambda s, b, r: s06.heavy_keep(s, b, r)[::-1], "wrong order"),
    ("bound", lambda w, v, k: sides(w, v, k, factor=1.0), "factor 2 is missing"),
    ("bound", lambda w, v, k: sides(w, v, k, renormalise=False), "add up to 1 again"),
    ("bound", lambda w, v, k: sides(w, v, k, of="kept"), "bound 2 ε max‖v‖ is"),
    ("bound", lambda w, v, k: 0.0, "expected a pair"),
    ("tight", lambda eps: (np.array([1 - eps, eps]), np.ones((2, 1)), FIRST_KEPT), "not equal yet"),
    (
        "tight",
        lambda eps: (np.array([1 - eps, eps]), np.zeros((2, 1)), FIRST_KEPT),
        "all values are zero",
    ),
    (
        "tight",
        lambda eps: (np.array([eps, 1 - eps]), np.array([[-1], [1]]), FIRST_KEPT),
        "dropped weights add up to 0.75",
    ),
    ("tight", lambda eps: (np.array([1, eps]), np.array([[-1], [1]]), FIRST_KEPT), "no softmax's"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_the_solution_is_accepted(name):
    assert getattr(e06, f"check_{name}")(CHECKS[name])


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e06, f"check_{name}")(mistake)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert words in said, said

"""Chapter 8: each check accepts its solution, and says what is wrong with usual mistakes."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis", reason="the checks search for counter-examples with it")
from exercises import e08
from solutions import s08

SOLUTIONS = {"holds": s08.holds, "sources": s08.sources, "ring": s08.Ring, "suite": s08.suite}


class Endless(s08.Ring):
    """Keeps every value."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.rows = []

    def push(self, x):
        super().push(x)
        self.rows.append(x)


class Unbounded(s08.Ring):
    """Forgets to move the oldest row on."""

    def push(self, x):
        self.places[self.count % self.capacity] = x
        self.count += 1


class Revived(s08.Ring):
    """Takes what was overwritten to be back after pop."""

    def pop(self):
        super().pop()
        self.oldest = max(0, self.count - self.capacity)


def direct(program):
    return [set(step) or {number} for number, step in enumerate(program)]


def with_itself(program):
    return [found | {number} for number, found in enumerate(s08.sources(program))]


def no_source(program):
    pairs = zip(s08.sources(program), program, strict=True)
    return [found if step else set() for found, step in pairs]


MISTAKES = [
    ("holds", lambda softmax, s: True, "weights that do not add up to 1 survives"),
    ("holds", lambda softmax, s: abs(sum(softmax(s)) - 1) < 1e-9, "the least weight survives"),
    ("holds", lambda softmax, s: sum(softmax(s)) == 1.0, "refuses a right softmax"),
    (
        "holds",
        lambda softmax, s: (
            abs(sum(softmax(s)) - 1) < 1e-9 and softmax(s)[s.index(max(s))] == max(softmax(s))
        ),
        "without the exponential survives",
    ),
    ("sources", direct, "holds a step that is no source"),
    ("sources", with_itself, "holds a step that is no source"),
    ("sources", no_source, "a step that reads nothing is its own source"),
    ("sources", lambda program: [], "you return 0 sets"),
    ("ring", Endless, "holds more than 1 values"),
    ("ring", Unbounded, "capacity 1: after push(0), push(1) the items are [1, 1], expected [1]"),
    ("ring", Revived, "expected"),
    ("suite", lambda: [(0, 2)], "that forgets the cached keys survives"),
    ("suite", lambda: [(0, 3), (5, 1)], "has no mask in calls of two tokens survives"),
    ("suite", lambda: [(0, 2), (4, 2), (1, 1)], "with 3 pairs"),
    ("suite", lambda: [(0, 0)], "tokens from 1 up"),
]


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_solution_is_accepted(name):
    assert getattr(e08, f"check_{name}")(SOLUTIONS[name])


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e08, f"check_{name}")(mistake)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert words in said, said

"""Checks of chapter 8: properties, labels, a state machine, mutants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from . import Wrong, exercise, require, smallest


def softmax(scores: list[float]) -> list[float]:
    """Right."""
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / sum(weights) for weight in weights]


def _unnormalised(scores: list[float]) -> list[float]:
    return [math.exp(score - max(scores)) for score in scores]


def _reversed(scores: list[float]) -> list[float]:
    return softmax([-score for score in scores])


def _linear(scores: list[float]) -> list[float]:
    shifted = [score - min(scores) + 1.0 for score in scores]
    return [score / sum(shifted) for score in shifted]


SOFTMAXES = {
    "gives weights that do not add up to 1": _unnormalised,
    "gives the highest score the least weight": _reversed,
    "weighs scores without the exponential": _linear,
}


@exercise
def check_holds(holds: Callable) -> None:
    """8.1: a property that a right softmax has and three wrong ones lack."""
    from hypothesis import strategies as st

    lists = st.lists(st.integers(-8, 8).map(lambda n: n / 2), min_size=1, max_size=5)
    found = smallest(lists, lambda scores: not holds(softmax, scores))
    require(found is None, f"your property refuses a right softmax, on the scores {found}.")
    for fault, wrong in SOFTMAXES.items():
        found = smallest(lists, lambda scores, wrong=wrong: not holds(wrong, scores))
        require(found is not None, f"a softmax that {fault} survives your property.")


@exercise
def check_sources(sources: Callable) -> None:
    """8.2: what each step of a program depends on."""
    from hypothesis import strategies as st

    def program(drawn: list[list[int]]) -> list[list[int]]:
        return [sorted({read % i for read in step}) if i else [] for i, step in enumerate(drawn)]

    def right(steps: list[list[int]]) -> list[set[int]]:
        known: list[set[int]] = []
        for i, step in enumerate(steps):
            known.append(set().union(*(known[read] for read in step)) if step else {i})
        return known

    def told(steps: list[list[int]]) -> list[set[int]]:
        return [set(found) for found in sources([list(step) for step in steps])]

    programs = st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=6).map(program)
    found = smallest(programs, lambda steps: told(steps) != right(steps))
    if found is None:
        return
    got, expected = told(found), right(found)
    require(
        len(got) == len(expected),
        f"for {found} you return {len(got)} sets, expected one for each step.",
    )
    at = next(i for i in range(len(got)) if got[i] != expected[i])
    missing, extra = expected[at] - got[at], got[at] - expected[at]
    why = f"{missing} is missing" if missing else f"{extra} does not belong there"
    if not found[at]:
        why = "a step that reads nothing is its own source"
    elif extra and any(found[step] for step in extra):
        why = f"{extra} holds a step that is no source"
    raise Wrong(f"for {found}, step {at} depends on {expected[at]}, you say {got[at]}: {why}.")


class _List:
    """What a ring should look like from outside: a list, and where the oldest known row is."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.rows, self.oldest = capacity, [], 0

    def push(self, x: int) -> None:
        self.rows.append(x)
        self.oldest = max(self.oldest, len(self.rows) - self.capacity)

    def pop(self) -> None:
        if self.items():
            self.rows.pop()

    def items(self) -> list[int]:
        return self.rows[self.oldest :]


@exercise
def check_ring(ring: type) -> None:
    """8.3: a ring against a list, over programs."""
    from hypothesis import strategies as st

    def run(case: tuple[int, str]) -> tuple[str, list, list] | None:
        capacity, program = case
        mine, theirs, done = _List(capacity), ring(capacity), []
        for number, letter in enumerate(program):
            for each in (mine, theirs):
                each.pop() if letter == "-" else each.push(number)
            done.append("pop()" if letter == "-" else f"push({number})")
            got = theirs.items()
            require(got is not None, "items() returned None, expected a list.")
            if list(got) != mine.items():
                return ", ".join(done), list(got), mine.items()
            held = [v for v in vars(theirs).values() if isinstance(v, (list, dict, tuple))]
            require(
                not any(len(v) > capacity for v in held),
                f"with capacity {capacity} a container holds more than {capacity} values "
                f"after {', '.join(done)}.",
            )
        return None

    cases = st.tuples(st.integers(1, 3), st.text("+-", max_size=9))
    found = smallest(cases, lambda case: run(case) is not None)
    if found is not None:
        program, got, expected = run(found) or ("", [], [])
        raise Wrong(
            f"capacity {found[0]}: after {program} the items are {got}, expected {expected}."
        )


def _table(start: int, tokens: int, last: Callable[[int], int]) -> np.ndarray:
    keys = np.arange(start + tokens)
    return np.array([keys <= last(row) for row in range(tokens)])


MASKS: dict[str, Callable[[int, int], np.ndarray]] = {
    "right": lambda start, tokens: _table(start, tokens, lambda row: start + row),
    "forgets the cached keys": lambda start, tokens: _table(start, tokens, lambda row: row),
    "no mask in calls of two tokens": lambda start, tokens: _table(
        start, tokens, lambda row: start + (1 if tokens == 2 else row)
    ),
    "hides the newest key from long texts": lambda start, tokens: _table(
        start, tokens, lambda row: start + row - (start + row >= 5)
    ),
    "leaks the next key on an empty cache": lambda start, tokens: _table(
        start, tokens, lambda row: start + row + (start == 0)
    ),
}


@exercise
def check_suite(suite: Callable) -> None:
    """8.4: at most two calls that kill all mutants."""
    given = suite()
    require(isinstance(given, (list, tuple)), f"you return {given!r}, expected a list of pairs.")
    for pair in given:
        require(
            isinstance(pair, (list, tuple)) and len(pair) == 2,
            f"{pair!r} is not a pair (start, tokens).",
        )
        require(
            0 <= pair[0] <= 100 and 1 <= pair[1] <= 100,
            f"{pair!r}: start is from 0 up, tokens from 1 up, and 100 is enough.",
        )
    for name, mask in MASKS.items():
        if name == "right":
            continue
        killed = any(not np.array_equal(mask(*pair), MASKS["right"](*pair)) for pair in given)
        require(killed, f"the mutant that {_verb(name)} survives {list(given)}.")
    require(len(given) <= 2, f"all mutants are dead, but with {len(given)} pairs; two are enough.")


def _verb(name: str) -> str:
    return "has " + name if name.startswith("no ") else name

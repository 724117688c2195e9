"""Checks of chapter 10: verdicts, exact relations, masks, the smallest case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minikv.arithmetic import Sight

from . import exercise, require

CASES = [
    (0.0, 0.0, "same bits"),
    (3e-7, 8e-16, "rounding"),
    (2e-5, 7e-15, "rounding"),  # SmolLM2 in float32, by a cache that is right
    (3e-4, 2.9e-4, "bug"),  # keys and values in float16, in a float32 model
    (0.9, 0.9, "bug"),
    (0.2, 1e-15, "rounding"),  # a row in bfloat16
]


@exercise
def check_verdict(verdict: Callable) -> None:
    """10.1: what is rounding, and what a bug."""
    for narrow, wide, expected in CASES:
        got = verdict(narrow, wide)
        require(
            got == expected,
            f"a difference of {narrow:g} in float32 that is {wide:g} in float64 is {expected!r}, "
            f"you say {got!r}.",
        )


def causal(ids: list[int]) -> np.ndarray:
    """Rows that see what is before them, and a length that moves the last bits."""
    table = np.cos(np.outer(np.arange(1, 11), np.arange(1, 6))).astype(np.float32)
    rows = np.cumsum(table[ids], axis=0)
    return rows * np.float32(1 + len(ids) * 2.0**-22)


def leaking(ids: list[int]) -> np.ndarray:
    """The last token moves the last bits of all rows."""
    return causal(ids) * np.float32(1 + ids[-1] * 2.0**-22)


def leaking_little(ids: list[int]) -> np.ndarray:
    """The last token moves one row by one bit, and only if it is odd."""
    rows = causal(ids)
    if ids[-1] % 2:
        rows[0, 0] = np.nextafter(rows[0, 0], np.float32(9))
    return rows


@exercise
def check_leaks(leaks: Callable) -> None:
    """10.2: an exact relation."""
    for ids in ([1, 2, 3, 4, 5, 6], [9, 8, 7, 0, 9, 9], [4, 4, 4, 4, 4, 4]):
        for cut in (1, 3, 5):
            require(
                not leaks(causal, list(ids), cut),
                f"the rows before {cut} of {ids} see nothing of what comes later, you say that "
                "they do. (The decoder's bits depend on the length of a text: did you keep it?)",
            )
            for wrong, what in ((leaking, "every row"), (leaking_little, "one bit of one row")):
                require(
                    leaks(wrong, list(ids), cut),
                    f"a decoder whose last token moves {what} is not found on {ids}, cut {cut}. "
                    "(One other text may agree by chance: try more than one, and compare bits.)",
                )


@exercise
def check_mask(mask: Callable) -> None:
    """10.3: which keys a new token sees."""
    for window in (None, 3, 1):
        for old, tokens in ((0, 1), (0, 3), (2, 1), (2, 3), (7, 2), (1, 6)):
            everybody = np.arange(old + tokens)
            sight = Sight(everybody[old:], everybody, window)
            hidden = sight.hidden(slice(0, tokens), slice(0, old + tokens))
            expected = np.ones((tokens, old + tokens), dtype=bool)
            if hidden is not None:
                expected &= ~hidden
            got = np.asarray(mask(old, tokens, window))
            where = f"old = {old}, tokens = {tokens}, window = {window}"
            require(
                got.shape == expected.shape,
                f"for {where} your table has shape {got.shape}, expected {expected.shape}.",
            )
            wrong = np.argwhere(got.astype(bool) != expected)
            if len(wrong):
                row, key = wrong[0]
                sees = "sees" if expected[row, key] else "does not see"
                require(False, f"for {where} new token {row} {sees} key {key}; yours is wrong.")


FAULTS: list[tuple[str, Callable[[list[int]], bool], list[int]]] = [
    ("two 7s", lambda ids: ids.count(7) >= 2, [1, 7, 3, 7, 2, 7, 0]),
    ("more than 3 tokens", lambda ids: len(ids) > 3, list(range(9))),
    ("a 5 before a 2", lambda ids: 5 in ids and 2 in ids[ids.index(5) :], [2, 5, 5, 1, 2, 2, 9]),
    ("any token at all", lambda ids: len(ids) > 0, [3, 1, 4]),
]


@exercise
def check_smallest(smallest: Callable) -> None:
    """10.4: a case of which nothing can be left out."""
    for what, fails, ids in FAULTS:
        calls = 0

        def counted(case: list[int], fails: Callable = fails) -> bool:
            nonlocal calls
            calls += 1
            return fails(list(case))

        got = list(smallest(counted, list(ids)))
        require(calls <= 500, f"you called fails {calls} times, expected 500 at most.")
        require(fails(got), f"the bug needs {what}; your {got} does not show it.")
        for place in range(len(got)):
            shorter = got[:place] + got[place + 1 :]
            require(
                not fails(shorter),
                f"the bug needs {what}; of your {got} the id at index {place} can be left out.",
            )

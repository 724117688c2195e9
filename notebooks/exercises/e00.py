"""Checks of chapter 0: byte-pair encoding, an average, and this machine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from minikv.commands.doctor import GOLDEN

from . import close, exercise, require, smallest

_TEXTS = st.text("ab ", min_size=2, max_size=8).map(list)


@exercise
def check_commonest(commonest: Callable) -> None:
    """0.1: the pair of neighbours that comes most often; the one that comes first, of equals."""

    def count(pieces: list[str], pair: object) -> int:
        return sum(pair == (a, b) for a, b in pairwise(pieces))

    def fault(pieces: list[str]) -> str:
        pair = commonest(list(pieces))
        if not isinstance(pair, tuple) or len(pair) != 2:
            return f"of {pieces} you return {pair!r}, expected a pair (left, right)"
        times = count(pieces, pair)
        if not times:
            return f"{pair} are no neighbours in {pieces}"
        for other in pairwise(pieces):
            if count(pieces, other) > times:
                return f"in {pieces} {pair} comes {times} times, {other} oftener"
        first = next(other for other in pairwise(pieces) if count(pieces, other) == times)
        if first != pair:
            return f"in {pieces} {first} comes as often as {pair}, and first"
        return ""

    found = smallest(_TEXTS, lambda pieces: bool(fault(pieces)))
    require(found is None, fault(found) if found is not None else "")


@exercise
def check_merged(merged: Callable) -> None:
    """0.4: a pair glued together, from the left, wherever it comes."""
    pairs = st.tuples(st.sampled_from("ab "), st.sampled_from("ab "))

    def fault(case: tuple[list[str], tuple[str, str]]) -> str:
        pieces, (left, right) = case
        got = merged(list(pieces), (left, right))
        where = f"{pieces} with {(left, right)}"
        if not isinstance(got, list):
            return f"{where}: you return {got!r}, expected a list"
        if "".join(got) != "".join(pieces):
            return f"{where}: {got} is another text; nothing may be lost or doubled"
        if any((a, b) == (left, right) for a, b in pairwise(got)):
            return f"{where}: {got} still has the pair"
        if set(got) - set(pieces) - {left + right}:
            return f"{where}: {got} has a piece that is neither old nor the pair"
        if left == right and got.count(left + right) and left in got:
            first = got.index(left)
            if got[first + 1 : first + 2] == [left + right]:
                return f"{where}: {got} glues from the right; go from the left"
        return ""

    found = smallest(st.tuples(_TEXTS, pairs), lambda case: bool(fault(case)))
    require(found is None, fault(found) if found is not None else "")


@exercise
def check_average(average: Callable) -> None:
    """0.2: a weighted average of rows, which is what attention takes."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [4.0, 2.0]])
    for weights, expected in (
        ([1.0, 0.0, 0.0], [1.0, 0.0]),
        ([1.0, 1.0, 0.0], [0.5, 0.5]),
        ([2.0, 2.0, 4.0], [2.25, 1.25]),
    ):
        got = np.asarray(average(np.array(weights), rows.copy()))
        where = f"weights {weights} of rows {rows.tolist()}"
        require(got.shape == (2,), f"{where}: the shape is {got.shape}, expected (2,)")
        hint = ""
        if close(got, np.array(weights) @ rows) and sum(weights) != 1:
            hint = "; divide by what the weights add up to"
        require(close(got, expected), f"{where} average to {expected}, not {got.tolist()}{hint}")


@exercise
def check_machine(fingerprint: str) -> None:
    """0.3: the digits that every machine must give."""
    require(isinstance(fingerprint, str), f"you give a {type(fingerprint).__name__}, expected text")
    require(len(fingerprint) == 64, f"you give {len(fingerprint)} characters, expected 64 digits")
    require(
        fingerprint == GOLDEN,
        "your 64 digits are not those of every other machine. Was the model made with "
        'arithmetic="exact" and seed 0, and the text range(1, 33)? If so, this machine computes '
        "otherwise: please report it, with  minikv doctor --json",
    )

"""Checks of chapter 6: what policies keep, and T9's bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minikv.verify.theorems.t09_bounded_loss import attention_loss

from . import Wrong, close, exercise, require, smallest


def _numbers(given: Any, what: str) -> list[int]:
    require(given is not None, f"your function returned None, expected a list of {what}.")
    return [int(number) for number in given]


def _compare(strategy: Any, student: Callable, right: Callable, what: str) -> None:
    """Show the smallest arguments for which a function keeps something else."""

    def wrong(arguments: tuple) -> bool:
        return _numbers(student(*arguments), what) != right(*arguments)

    found = smallest(strategy, wrong)
    if found is None:
        return
    got, expected = _numbers(student(*found), what), right(*found)
    shown = ", ".join(repr(argument) for argument in found)
    if sorted(got) == expected:
        raise Wrong(f"for ({shown}) the right {what} come in the wrong order: {got}.")
    if len(got) != len(expected):
        raise Wrong(
            f"for ({shown}) you keep {len(got)}, expected {len(expected)}: {got}, not {expected}."
        )
    raise Wrong(f"for ({shown}) you keep {got}, expected {expected}.")


def _positions() -> Any:
    from hypothesis import strategies as st

    return st.lists(st.integers(0, 30), max_size=12, unique=True).map(sorted)


@exercise
def check_window(window_keeps: Callable) -> None:
    """6.1: the newest `budget` positions."""
    from hypothesis import strategies as st

    _compare(
        st.tuples(_positions(), st.integers(1, 8)),
        window_keeps,
        lambda positions, budget: positions[-budget:],
        "positions",
    )


@exercise
def check_sinks(sinks_keep: Callable) -> None:
    """6.2: the sinks and the newest."""
    from hypothesis import strategies as st

    def right(positions: list[int], budget: int, sinks: int) -> list[int]:
        if len(positions) <= budget:
            return positions
        first = [p for p in positions if p < sinks]
        rest = [p for p in positions if p >= sinks]
        return first + rest[len(rest) - (budget - len(first)) :]

    texts = st.integers(0, 20).map(lambda n: list(range(n)))
    cases = st.tuples(texts, st.integers(2, 8), st.integers(0, 4)).filter(lambda c: c[2] < c[1])
    _compare(cases, sinks_keep, right, "positions")


@exercise
def check_heavy(heavy_keep: Callable) -> None:
    """6.3: recent rows and heavy hitters, the newer of equals."""
    from hypothesis import strategies as st

    def right(scores: list[float], budget: int, recent: int) -> list[int]:
        priority = [(score, row) for row, score in enumerate(scores)]
        for row in range(max(0, len(scores) - recent), len(scores)):
            priority[row] = (float("inf"), row)
        return sorted(row for _, row in sorted(priority)[-budget:])

    scores = st.lists(st.integers(0, 4).map(float), max_size=9)
    cases = st.tuples(scores, st.integers(1, 6), st.integers(0, 6)).filter(lambda c: c[2] <= c[1])
    _compare(cases, heavy_keep, right, "row numbers")


@exercise
def check_bound(loss_and_bound: Callable) -> None:
    """6.4: both sides of T9."""
    from hypothesis import strategies as st

    def case(drawn: tuple[list[int], list[int], list[bool]]) -> tuple:
        shares, numbers, marks = drawn
        size = min(len(shares), len(numbers) // 2, len(marks))
        weights = np.array(shares[:size], dtype=np.float64)
        v = np.array(numbers[: 2 * size], dtype=np.float64).reshape(size, 2)
        keep = np.array(marks[:size], dtype=bool)
        keep[0] = True
        return weights / weights.sum(), v, keep

    cases = st.tuples(
        st.lists(st.integers(1, 4), min_size=2, max_size=4),
        st.lists(st.integers(-3, 3), min_size=4, max_size=8),
        st.lists(st.booleans(), min_size=2, max_size=4),
    )

    def told(drawn: Any) -> tuple[float, float]:
        pair = loss_and_bound(*case(drawn))
        require(
            isinstance(pair, (tuple, list)) and len(pair) == 2,
            f"your function returned {pair!r}, expected a pair: the loss and the bound.",
        )
        return float(pair[0]), float(pair[1])

    for place, name in enumerate(("loss ‖o − o′‖", "bound 2 ε max‖v‖")):
        found = smallest(
            cases,
            lambda drawn, i=place: not close(told(drawn)[i], attention_loss(*case(drawn))[i]),
        )
        if found is None:
            continue
        weights, v, keep = case(found)
        got, expected = told(found)[place], attention_loss(weights, v, keep)[place]
        advice = ""
        if place == 0 and close(got, np.linalg.norm(weights[~keep] @ v[~keep])):
            advice = " The kept weights must add up to 1 again."
        if place == 1 and close(2 * got, expected):
            advice = " The factor 2 is missing: what is dropped is also handed to the others."
        raise Wrong(
            f"with weights {weights.tolist()}, values {v.tolist()} and keep {keep.tolist()} the "
            f"{name} is {expected:.4g}, you have {got:.4g}.{advice}"
        )


@exercise
def check_tight(worst_case: Callable) -> None:
    """6.5: a case in which T9 is an equality."""
    for eps in (0.25, 0.5, 0.1):
        given = worst_case(eps)
        require(
            isinstance(given, (tuple, list)) and len(given) == 3,
            f"your function returned {given!r}, expected (weights, v, keep).",
        )
        weights, v = (np.asarray(part, dtype=np.float64) for part in given[:2])
        keep = np.asarray(given[2], dtype=bool)
        v = v.reshape(len(weights), -1)
        require(
            (weights >= 0).all() and close(weights.sum(), 1.0),
            f"for eps = {eps} the weights {weights.tolist()} are no softmax's: they must be "
            f"0 or more and add up to 1.",
        )
        require(
            close(weights[~keep].sum(), eps),
            f"for eps = {eps} the dropped weights add up to {weights[~keep].sum():.4g}.",
        )
        require(v.any(), f"for eps = {eps} all values are zero: then both sides are 0.")
        loss, bound = attention_loss(weights, v, keep)
        require(
            close(loss, bound),
            f"for eps = {eps} the output moves by {loss:.4g}, and the bound is {bound:.4g}: "
            "not equal yet. Let what is dropped pull against what is kept.",
        )


@exercise
def check_gathered(gathered: Callable) -> None:
    """Attention that keys have gathered, in whole numbers; what is handed out adds up."""
    for heads, groups, tokens, length in ((1, 1, 1, 3), (2, 1, 2, 3), (4, 2, 3, 5)):
        pattern = np.arange(1.0, heads * tokens * length + 1).reshape(heads, tokens, length) ** 2
        got = np.asarray(gathered(pattern.copy(), groups))
        where = f"{heads} query heads on {groups}, {tokens} queries, {length} keys"
        require(
            got.shape == (length, groups),
            f"{where}: the shape is {got.shape}, expected ({length}, {groups})",
        )
        require(
            got.sum() == pattern.sum(),
            f"{where}: {pattern.sum():.0f} in all is handed out, you have {got.sum():.0f}; sum "
            "over queries and over the heads that share, and take no mean",
        )
        for key in range(length):
            for group in range(groups):
                share = pattern[:, :, key].sum(axis=1).reshape(groups, -1)[group].sum()
                require(
                    got[key, group] == share,
                    f"{where}: key {key} of head {group} has gathered {share:.0f}, you have "
                    f"{got[key, group]:.0f}; neighbouring query heads share a key head",
                )


@exercise
def check_renormalised(renormalised: Callable) -> None:
    """Weights after eviction, against the softmax of what is left."""
    scores = np.array([0.5, 2.0, -1.0, 1.0])
    weights = np.exp(scores) / np.exp(scores).sum()
    for mask in ([1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]):
        keep = np.array(mask, dtype=bool)
        got = np.asarray(renormalised(weights.copy(), keep.copy()))
        where = f"weights {np.round(weights, 3).tolist()}, kept {mask}"
        require(got.shape == (4,), f"{where}: the shape is {got.shape}, expected (4,)")
        require(not got[~keep].any(), f"{where}: what is dropped has weight 0")
        require(close(got.sum(), 1.0), f"{where}: your weights add up to {got.sum():.4f}, not to 1")
        left = np.exp(scores[keep])
        require(
            close(got[keep] * left.sum(), left),
            f"{where}: softmax over the rest keeps the ratios of the kept weights, yours do not",
        )

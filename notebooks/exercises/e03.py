"""Checks of chapter 3, floating point."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from . import exercise, require, smallest


@exercise
def check_three_numbers(three_numbers: Callable[[], Any]) -> None:
    """Three float32 numbers whose sum depends on the brackets."""
    given = tuple(three_numbers())
    require(len(given) == 3, f"{len(given)} numbers were returned, expected three")
    for number in given:
        require(
            float(np.float32(number)) == float(number),
            f"{number!r} is no float32 (the nearest is {float(np.float32(number))!r}); "
            "powers of two are always safe",
        )
        require(abs(number) <= 10, f"{number!r} is larger than 10 in size")
    a, b, c = (np.float32(number) for number in given)
    require(
        (a + b) + c != a + (b + c),
        f"both brackets give {float((a + b) + c)!r} in float32; "
        "choose numbers of very different size",
    )


@exercise
def check_is_safe(is_safe: Callable[[list[int], list[int]], bool]) -> None:
    """Whether a sum of products is exact in any order."""

    def true(pairs: list[tuple[int, int]]) -> bool:
        return sum(abs(x * w) for x, w in pairs) <= 2**53

    def said(pairs: list[tuple[int, int]]) -> bool:
        return bool(is_safe([x for x, _ in pairs], [w for _, w in pairs]))

    require(
        not said([(2**26, 2**27), (1, 1)]),
        "x = [2^26, 1], w = [2^27, 1]: the absolute products add up to 2^53 + 1, more than 2^53; "
        "do you round them, or their sum, before you compare?",
    )
    powers = st.sampled_from([2**k for k in (0, 20, 25, 26, 27, 32)])
    numbers = st.builds(lambda p, s: p * s, powers, st.sampled_from([1, -1]))
    pairs = smallest(
        st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), lambda p: said(p) != true(p)
    )
    if pairs is not None:
        total = sum(abs(x * w) for x, w in pairs)
        shown = f"x = {[x for x, _ in pairs]}, w = {[w for _, w in pairs]}"
        hint = ""
        if not true(pairs) and abs(sum(x * w for x, w in pairs)) <= 2**53:
            hint = "; the terms cancel in the end, but not in every partial sum"
        elif not true(pairs) and total >= 2**63:
            hint = "; does your number overflow an int64?"
        elif true(pairs):
            hint = "; you refuse more than you must"
        require(
            False,
            f"{shown}: the absolute products add up to {total}, which is "
            f"{'at most' if true(pairs) else 'more than'} 2^53 = {2**53}{hint}",
        )


@exercise
def check_kahan(kahan: Callable[[list[float]], float]) -> None:
    """A compensated sum: an error of about 2 u sum |x|, however many terms there are."""
    cases = {
        "ten thousand times 0.1": [0.1] * 10000,
        "1.0 followed by a thousand times 1e-16": [1.0] + [1e-16] * 1000,
        "-1.0 followed by a thousand times 3e-17": [-1.0] + [3e-17] * 1000,
    }
    for name, terms in cases.items():
        got, true = kahan(list(terms)), math.fsum(terms)
        bound = 3 * 2.0**-53 * sum(map(abs, terms))
        plain = 0.0
        for term in terms:
            plain += term
        hint = ""
        if got == plain:
            hint = "; this is what plain addition gives: the lost part never came back"
        elif abs(got - true) > abs(plain - true):
            hint = "; it is further off than plain addition: look at the sign of the correction"
        require(
            abs(got - true) <= bound, f"{name} adds up to {true!r}, and you return {got!r}{hint}"
        )


@exercise
def check_grid(grid: Callable[[list[float], int], float]) -> None:
    """The finest grid on which absolute integers add up to 2**bits."""

    def total(x: list[float], g: float) -> int:
        return sum(abs(round(value / g)) for value in x)

    def finest(x: list[float], bits: int) -> float:
        g = 2.0 ** (math.frexp(max(map(abs, x)))[1] - bits - 1)
        while total(x, g) > 2**bits:
            g *= 2
        return g

    def fault(x: list[float], bits: int) -> str:
        g = grid(list(x), bits)
        if not (isinstance(g, (float, int, np.floating)) and g > 0 and math.isfinite(g)):
            return f"you return {g!r}, expected a positive number"
        g = float(g)
        if math.frexp(g)[0] != 0.5:
            return f"{g!r} is no power of two"
        if total(x, g) > 2**bits:
            return f"on the grid {g!r} the integers add up to {total(x, g)}, more than 2^{bits}"
        if g > 4 * finest(x, bits):
            return f"{g!r} is {g / finest(x, bits):.0f} times as coarse as {finest(x, bits)!r} is"
        if float(grid(list(reversed(x)), bits)) != g:
            return "the same numbers in reverse order get another grid"
        return ""

    lists = st.one_of(
        st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=6),
        st.integers(1, 12).map(lambda n: [1.0] + [2.0**-12] * 2**n),
        st.integers(1, 8).map(lambda n: [1.0] * 2**n),
        st.integers(1, 11).map(lambda n: [0.625] * (3 * 2**n)),  # each rounds up on coarse grids
    )
    case = smallest(
        st.tuples(lists.filter(any), st.sampled_from([12, 32])), lambda c: bool(fault(*c))
    )
    if case is not None:
        x, bits = case
        shown = str(x) if len(x) <= 8 else f"{len(x)} numbers [{x[0]}, {x[1]}, ... {x[-1]}]"
        require(False, f"x = {shown} and bits = {bits}: {fault(x, bits)}")


@exercise
def check_digest(digest: Callable[[np.ndarray], str]) -> None:
    """SHA-256 of little-endian float32."""
    import hashlib

    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    row = np.array([[1.0, -2.5, 0.1]], dtype=np.float32)
    got = digest(row)
    require(isinstance(got, str), f"you return a {type(got).__name__}, expected a string")
    require(len(got) == 64, f"you return {len(got)} characters, expected 64 hexadecimal digits")
    require(got != sha(row.astype(">f4").tobytes()), "the bytes are in big-endian order")
    require(
        got != sha(row.astype(np.float64).tobytes()), "you hash float64; every number has 4 bytes"
    )
    require(got != sha(str(row).encode()), "you hash printed digits, which leave out the last bits")
    require(got == sha(row.astype("<f4").tobytes()), f"the digest of {row.tolist()} is another")
    require(
        digest(row.astype(np.float64)) == got,
        "the same numbers given as float64 get another digest: convert to float32 first",
    )
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    require(
        digest(table.T) == sha(np.array(table.T, order="C").astype("<f4").tobytes()),
        "a transposed array gets the digest of the original: go row by row",
    )


@exercise
def check_round_to(round_to: Callable[..., np.ndarray]) -> None:
    """Multiples of a grid, the nearest, as fractions say."""
    numbers = st.integers(-64, 64).map(lambda n: n / 16)
    grids = st.sampled_from([0.25, 0.5, 1.0, 4.0])

    def fault(case: tuple[float, float]) -> str:
        x, grid = case
        got = float(np.asarray(round_to(np.array([x]), grid))[0])
        if got == x and (x / grid) % 1:
            return f"{x} comes back as it is; on the grid {grid} there are multiples of {grid} only"
        if (got / grid) % 1:
            return f"{x} becomes {got}, which is no multiple of {grid}"
        if abs(got - x) > grid / 2:
            return f"{x} becomes {got} on the grid {grid}, and another multiple is nearer"
        return ""

    case = smallest(st.tuples(numbers, grids), lambda case: bool(fault(case)))
    require(case is None, fault(case) if case is not None else "")
    table, rows = np.array([[0.3, 0.7], [0.3, 0.7]]), np.array([[0.5], [0.125]])
    got = np.asarray(round_to(table, rows))
    require(
        np.array_equal(got, [[0.5, 0.5], [0.25, 0.75]]),
        f"with a grid for each row, {rows.tolist()}, the rows [0.3, 0.7] become {got.tolist()}",
    )


@exercise
def check_on_grids(on_grids: Callable[..., np.ndarray]) -> None:
    """A product that no order changes: against whole numbers, and with its columns shuffled."""
    rng = np.random.default_rng(6)
    x, matrix = rng.normal(size=(4, 60)), rng.normal(size=(5, 60))
    x_grid, w_grid = np.full((4, 1), 2.0**-24), np.full((5, 1), 2.0**-20)
    got = np.asarray(on_grids(x, matrix, x_grid, w_grid))
    require(got.shape == (4, 5), f"the shape is {got.shape}, expected (4, 5)")
    left = [[round(value * 2**24) for value in row] for row in x.tolist()]
    right = [[round(value * 2**20) for value in row] for row in matrix.tolist()]
    sums = [[sum(a * b for a, b in zip(r, m, strict=True)) for m in right] for r in left]
    expected = np.array([[total / 2**44 for total in row] for row in sums])
    hint = "the terms must be products of two rounded numbers"
    if np.array_equal(got, x @ matrix.T):
        hint = "nothing has been rounded"
    elif np.array_equal(got, np.array(sums, dtype=np.float64)):
        hint = "these are counts of grid steps; round_to gives the rounded numbers themselves"
    elif np.array_equal(got, np.rint(x @ matrix.T * 2**44) / 2**44):
        hint = "you rounded the product; by then its sums have rounded already"
    require(np.array_equal(got, expected), f"these are not the sums of whole numbers: {hint}")
    shuffled = rng.permutation(60)
    again = on_grids(x[:, shuffled], matrix[:, shuffled], x_grid, w_grid)
    require(np.array_equal(got, again), "with its columns shuffled the product has other bits")

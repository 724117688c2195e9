"""Checks of chapter 9: bytes, operations, rooflines, and sums that may be reordered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minikv import ModelConfig

from . import Wrong, exercise, require, smallest


def _differs(given: Any, expected: Any) -> bool:
    require(
        isinstance(given, (int, float)) and not isinstance(given, bool),
        f"your function returned {given!r}, expected a number.",
    )
    return not math.isclose(given, expected, rel_tol=1e-9)


@exercise
def check_attainable(attainable: Callable) -> None:
    """9.1: the roofline."""
    from hypothesis import strategies as st

    number = st.integers(1, 64).map(float)
    found = smallest(
        st.tuples(number, number, number),
        lambda case: _differs(attainable(*case), min(case[2], case[0] * case[1])),
    )
    if found is None:
        return
    intensity, bandwidth, peak = found
    bound = "memory" if intensity * bandwidth < peak else "arithmetic"
    raise Wrong(
        f"{intensity} FLOP/byte, {bandwidth} bytes/s and at most {peak} FLOP/s: "
        f"{min(peak, intensity * bandwidth)} FLOP/s (bound by {bound}), you have "
        f"{attainable(*found)}."
    )


def _parts(config: ModelConfig, context: int) -> dict[str, int]:
    """Numbers read in a step, by what they are."""
    width, d = config.hidden_size, config.head_dim
    q, kv = config.num_attention_heads * d, config.num_key_value_heads * d
    layers = config.num_hidden_layers
    return {
        "q_proj": layers * width * q,
        "k_proj and v_proj": layers * 2 * width * kv,
        "o_proj": layers * width * q,
        "the MLP": layers * 3 * width * config.intermediate_size,
        "the output matrix": config.vocab_size * width,
        "the stored K and V": layers * 2 * kv * context,
    }


@exercise
def check_step_bytes(step_bytes: Callable) -> None:
    """9.2: what a step reads. Each part of the answer is varied on its own."""

    def shape(**changes: int) -> ModelConfig:
        numbers = {
            "vocab_size": 101,
            "hidden_size": 10,
            "intermediate_size": 14,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 6,
        }
        return ModelConfig(**(numbers | changes))

    base, context = shape(), 7
    got, parts = step_bytes(base, context, 4), _parts(base, context)
    expected = 4 * sum(parts.values())
    if _differs(got, expected):
        for name, count in parts.items():
            for factor, what in ((1, f"{name} is left out"), (-1, f"{name} is counted twice")):
                if not _differs(got, expected - 4 * factor * count):
                    raise Wrong(f"{what}: {got:,} bytes, expected {expected:,}, for {base}.")
        raise Wrong(
            f"you have {got:,} bytes, expected {expected:,}, for {base} and {context} "
            f"stored tokens; in numbers: {parts}."
        )
    for config, stored, size in (
        (base, 0, 4),
        (base, 70, 2),
        (shape(head_dim=8), 7, 8),
        (shape(num_key_value_heads=1), 9, 2),
    ):
        got, expected = (
            step_bytes(config, stored, size),
            size * sum(_parts(config, stored).values()),
        )
        require(
            not _differs(got, expected),
            f"right for one shape, but {got:,} bytes, expected {expected:,}, for {config}, "
            f"{stored} stored tokens and {size} bytes a number.",
        )


def _intensity(b: int, n: int, k: int, itemsize: int) -> float:
    return 2 * b * n * k / (itemsize * (n * k + b * k + b * n))


@exercise(none_is_an_answer=True)
def check_enough(enough: Callable) -> None:
    """9.3: the smallest batch that is bound by arithmetic."""
    from hypothesis import strategies as st

    def right(n: int, k: int, itemsize: int, ridge: float) -> int | None:
        if 2 * n * k / (itemsize * (n + k)) <= ridge:
            return None
        b = 1
        while _intensity(b, n, k, itemsize) < ridge:
            b += 1
        return b

    shapes = st.tuples(
        st.integers(1, 40),
        st.integers(1, 40),
        st.sampled_from([2, 4, 8]),
        st.integers(1, 12).map(lambda q: q / 4),
    )
    found = smallest(shapes, lambda case: enough(*case) != right(*case))
    if found is None:
        return
    got, expected, (n, k, itemsize, ridge) = enough(*found), right(*found), found
    said = (
        f"N = {n}, K = {k}, {itemsize} bytes, ridge {ridge}: you say {got!r}, expected {expected}."
    )
    if expected is None:
        limit = 2 * n * k / (itemsize * (n + k))
        raise Wrong(f"{said} However large the batch, the intensity stays below {limit:.3g}.")
    if isinstance(got, (int, float)) and got >= 1:
        said += f" At b = {got} the intensity is {_intensity(got, n, k, itemsize):.4g}."
    raise Wrong(f"{said} At b = {expected} it is {_intensity(expected, n, k, itemsize):.4g}.")


@exercise
def check_recompute_ratio(recompute_ratio: Callable) -> None:
    """9.6: recomputing against reading."""
    from hypothesis import strategies as st

    def times(D: int, G: int, d: int, size: int, bandwidth: float, peak: float) -> tuple:
        return 2 * G * d * size / bandwidth, D * size / bandwidth, 4 * D * G * d / peak

    def right(*case: Any) -> float:
        read, move, compute = times(*case)
        return max(move, compute) / read

    cases = st.tuples(
        st.integers(1, 16),
        st.integers(1, 4),
        st.integers(1, 4).map(lambda n: 2 * n),
        st.sampled_from([2, 4]),
        st.integers(1, 8).map(float),
        st.integers(1, 64).map(float),
    )
    found = smallest(cases, lambda case: _differs(recompute_ratio(*case), right(*case)))
    if found is None:
        return
    read, move, compute = times(*found)
    got = recompute_ratio(*found)
    advice = ""
    if not _differs(got, (move + compute) / read):
        advice = " The two overlap: take the longer, not the sum."
    elif not _differs(got * right(*found), 1.0):
        advice = " This is the inverse."
    raise Wrong(
        f"(D, G, d, itemsize, bandwidth, peak) = {found}: reading takes {read:.4g} s, moving the "
        f"residual {move:.4g} s, computing {compute:.4g} s. The ratio is {right(*found):.4g}, you "
        f"have {got:.4g}.{advice}"
    )


def _total(columns: list[np.ndarray]) -> float:
    """The sum of sums, each in order; then the second half is added to the first, and so on."""
    sums = np.array([np.add.accumulate([0.0, *column])[-1] for column in columns])
    while sums.size > 1:
        sums = np.add(*sums.reshape(2, -1))
    return float(sums[0])


@exercise
def check_lanes(lanes: Callable) -> None:
    """9.4: a dot product in n sums side by side."""
    from hypothesis import strategies as st

    # 2**53 + 1 is not a float64: here it matters what is added to what.
    entry = st.sampled_from([0.0, 1.0, -1.0, 2.0**53, -(2.0**53)])
    cases = st.tuples(st.lists(entry, max_size=11), st.sampled_from([1, 2, 4]))

    def both(case: tuple) -> tuple[float, float]:
        x = np.array(case[0], dtype=np.float64)
        return lanes(x, np.ones(len(x)), case[1]), _total([x[i :: case[1]] for i in range(case[1])])

    def wrong(case: tuple) -> bool:
        got, expected = both(case)
        _differs(got, expected)  # a number at all?
        return got != expected

    found = smallest(cases, wrong)
    if found is not None:
        got, expected = both(found)
        x, n = np.array(found[0]), found[1]
        products = [x[i::n].tolist() for i in range(n)]
        whole = len(x) // n * n
        advice = ""
        if whole < len(x) and got == _total([x[:whole][i::n] for i in range(n)]):
            advice = " The last products, fewer than n, are left out."
        elif got == _total([x]):
            advice = " This is the sum in order."
        raise Wrong(
            f"the products {found[0]} in {n} sums, which add up {products}, give "
            f"{expected}, you have {got}.{advice}"
        )
    x, w = np.array([3.0, 5.0, 7.0]), np.array([2.0, -4.0, 0.5])
    total = _total([(x * w)[::2], (x * w)[1::2]])
    require(
        lanes(x, w, 2) == total,
        f"right where w is 1, but x = {x.tolist()} and w = {w.tolist()} give "
        f"{total}, you have {lanes(x, w, 2)}.",
    )


@exercise
def check_bytes_enough(bytes_enough: Callable) -> None:
    """9.5: the shortest format that holds all weights."""
    from hypothesis import strategies as st

    def right(w: np.ndarray) -> int:
        with np.errstate(over="ignore"):
            single = w.astype(np.float32)
        if (single.astype(np.float64) != w).any():
            return 8
        return 4 if (single.view(np.uint32) & 0xFFFF).any() else 2

    digits = {2: "8 digits and an exponent of 8 bits", 4: "24 digits", 8: "53 digits"}
    # By digits: 1, 8, 9, 11 (which a float16 has), 24, 25; and what float16's exponents lack.
    weight = st.sampled_from(
        [
            1.0,
            -0.0,
            1 + 2.0**-7,
            1 + 2.0**-8,
            1 + 2.0**-10,
            -1 - 2.0**-23,
            1 + 2.0**-24,
            2.0**20,
            2.0**-40,
            2.0**200,
        ]
    )
    cases = st.lists(weight, min_size=1, max_size=4).map(np.array)
    found = smallest(cases, lambda w: bytes_enough(w.copy()) != right(w))
    if found is not None:
        raise Wrong(
            f"the weights {found.tolist()} need {right(found)} bytes "
            f"({digits[right(found)]} hold them all), you say "
            f"{bytes_enough(found.copy())!r}."
        )

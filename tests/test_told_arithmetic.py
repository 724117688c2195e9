"""Numbers that pages and docstrings tell of the arithmetic are those of the code."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re

import check_vectors
import compilers
import numpy as np
import pytest
from bits import assert_same_bits

from minikv.arithmetic import Bfloat16, Exact, Float16, Float32, NumpyExact, elementary, exact
from minikv.arithmetic import numpy_exact as on_numpy
from minikv.arithmetic.masking import masked_in_place
from minikv.arithmetic.rounded import Float16Numbers

ROOT = compilers.ROOT
SPECIFICATION = " ".join((ROOT / "docs" / "exact.md").read_text(encoding="utf-8").split())
SOURCE = compilers.SOURCE.read_text(encoding="utf-8")
LOWEST = elementary.LOWEST * elementary.STEPS


def told(function: object) -> str:
    """The docstring of a function, in one line."""
    return " ".join((inspect.getdoc(function) or "").split())


def test_the_table_of_exp_has_the_ends_the_length_and_the_digest_of_the_specification():
    table = elementary.exp_table()
    assert f"for n from {LOWEST} to {LOWEST + len(table) - 1}." in SPECIFICATION
    assert f"The SHA-256 of the {len(table):,} numbers from E[{LOWEST}] up" in SPECIFICATION
    assert hashlib.sha256(table.astype("<f8").tobytes()).hexdigest() in SPECIFICATION
    assert LOWEST + len(table) - 1 == round(elementary.STEPS * elementary.HIGHEST)


def test_exp_ends_where_its_docstring_says():
    """To the second digit behind the point."""
    last, zero = (float(one) for one in re.findall(r"-?\d+\.\d+", told(elementary.exp))[:2])
    assert f"inf above {last}, 0 below {zero}" in elementary.__doc__
    ends = elementary.exp(np.array([last, last + 0.01, zero, zero - 0.01]))
    assert np.isfinite(ends).tolist() == [True, False, True, True]
    assert (ends > 0).tolist() == [True, True, True, False]


def test_power_below_ends_at_2_to_the_970():
    assert "from 0 to 2**970;" in told(exact.power_below)
    smallest = 2.0**-1074
    for y in (smallest, 2.0**-1022, 2.0**969 * 1.5, np.nextafter(2.0**970, 0), 2.0**970):
        assert exact.power_below(np.array([y]))[0] == 2.0 ** (np.frexp(y)[1] - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        assert not np.isfinite(exact.power_below(np.array([2.0**972])))[0]


def test_power_below_takes_three_operations_on_y():
    """Two of constants beside them, which are made once."""
    tree = ast.parse(inspect.getsource(exact.power_below))
    on_numbers = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.BinOp) and any(isinstance(name, ast.Name) for name in ast.walk(one))
    ]
    assert len(on_numbers) == 3
    assert told(exact.power_below).partition(". ")[2].startswith("Three ")
    assert not [one for one in ast.walk(tree) if isinstance(one, ast.Call)]


@pytest.mark.parametrize("grid", [2.0**-60, 1.0, 2.0**60])
def test_round_to_is_right_up_to_2_to_the_51_grids(grid):
    assert "|x| <= 2**51 * grid" in told(exact.round_to)
    rng = np.random.default_rng(0)
    ends = np.array([2.0**51, -(2.0**51), 2.0**51 - 0.5, 0.5 - 2.0**51, 2.0**51 - 1.5])
    x = np.concatenate([ends, rng.uniform(-(2.0**51), 2.0**51, 500)])
    assert_same_bits(exact.round_to(x * grid, grid), (np.rint(x) + 0.0) * grid)
    beyond = np.array([-(2.0**51) - 1.5])  # the control: there float64 is finer than the grid
    assert exact.round_to(beyond.copy(), 1.0)[0] != np.rint(beyond)[0]


@pytest.mark.parametrize("kind", [Exact, NumpyExact])
def test_nothing_is_rounded_to_a_grid_too_fine_and_only_zeros_to_none(kind, monkeypatch):
    assert "It is used with |x| <= 2<sup>51</sup> g only." in SPECIFICATION
    assert "Where g is 0 so is all of the row." in SPECIFICATION
    largest = []
    rounded = exact.round_to

    def watched(x, grid):
        size = np.abs(np.asarray(x))
        bound = np.broadcast_to(np.asarray(grid), size.shape)
        assert (size <= 2.0**51 * bound).all()
        largest.append(bool((size > 2.0**20 * bound).any()))
        return rounded(x, grid)

    for module in (exact, on_numpy):
        if hasattr(module, "round_to"):
            monkeypatch.setattr(module, "round_to", watched)
    arithmetic = kind(64)
    rng = np.random.default_rng(0)
    x = rng.standard_t(2, (5, 12)).astype(np.float32)
    x[1], x[2, 1:] = 0, 0
    arithmetic.linear(x, arithmetic.weight(x[:3], "w"))
    arithmetic.mean_square(x)
    arithmetic.total(np.abs(x.astype(np.float64)))
    heads = x.reshape(5, 2, 6)
    k = arithmetic.settle(heads)
    pattern = arithmetic.softmax(arithmetic.scores(heads, k, 0.4))
    arithmetic.weighted_sum(pattern, k)
    assert len(largest) >= 8
    assert any(largest)


def test_what_is_kept_is_binary32_and_what_lies_between_is_binary64():
    assert "K, V and logits are binary32; all else is binary64" in SPECIFICATION
    for arithmetic in (Exact(), NumpyExact()):
        assert arithmetic.dtype == np.float32
        assert arithmetic.wide == np.float64
        assert arithmetic.xp is np
    matrix = np.ones((2, 3), np.float32)
    assert NumpyExact().weight(matrix, "w").values.dtype == np.float64


def test_numbers_of_16_bits_take_as_many_bytes_as_float32():
    assert Bfloat16().itemsize == Float16().itemsize == Float32().itemsize == 4
    assert f"up to {np.finfo(np.float16).max:,.0f}." in told(Float16Numbers)


def test_there_are_as_many_programs_as_the_specification_says():
    if "-mfma" not in compilers.fused():
        pytest.skip("no x86-64 with fused multiply-add")
    flags = [flags for flags in compilers.flag_sets() if compilers.BARE not in flags]
    assert f": {len(compilers.COMPILERS) * len(flags)} programs," in SPECIFICATION
    levels = (compilers.LEVELS[0], compilers.LEVELS[-1])
    assert "each at `{}` to `{}`, plain".format(*levels) in SPECIFICATION
    assert f"with `{' '.join(compilers.fused())}`:" in SPECIFICATION


def test_the_c_counts_in_as_many_bits_as_the_specification_says():
    (limbs,) = re.findall(r"#define LIMBS (\d+)", SOURCE)
    bits = 32 * (int(limbs) - 1)  # one limb is the whole part
    assert f"numbers of {bits} bits" in SPECIFICATION
    assert f"in fixed point of {bits} bits" in SPECIFICATION


NOT_FUSED = {
    "exact_exp": (5, "not in the exponential"),
    "head_and_tail": (1, "its table"),
    "make_exp_table": (2, "its table"),
    "sine": (7, "sine and cosine (section 5)"),
    "rope": (4, "not in a rotation"),
    "gated": (4, "the product inside GELU"),
    "scores": (1, "between the scaling of a query and its rounding"),
}
"""How many products of each function of the C may not be fused; what the page calls them."""
NO_SUM_FOLLOWS = {"grid_of", "frequencies"}


def test_the_products_that_may_not_be_fused_are_calls_where_the_specification_says():
    functions = re.split(r"(?m)^(?:static )?[\w ]+?\*?(\w+)\([^;{]*\)\n?\s*\{", SOURCE)
    bodies = zip(functions[1::2], functions[2::2], strict=True)
    calls = {name: body.count("times(") for name, body in bodies if "times(" in body}
    assert calls.keys() == {*NOT_FUSED} | NO_SUM_FOLLOWS
    forbidden = SPECIFICATION.partition("a compiler must not make one of them:")[2]
    for name, (count, said) in NOT_FUSED.items():
        assert calls[name] == count
        assert said in forbidden[:200]


def test_numbers_of_the_vectors_are_decimal_or_of_8_or_16_digits_most_significant_first():
    lengths = set()
    for path in check_vectors.FOLDER.glob("*.json"):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            assert entry.keys() == {"operation", "says", "given", "expected"}
            for _, value in entry["given"]:
                words = value.split()
                widths = {len(word) for word in words}
                if widths <= {8} or widths <= {16}:
                    assert all(re.fullmatch(r"[0-9a-f]+", word) for word in words)
                    lengths |= widths
                else:
                    assert all(re.fullmatch(r"\d+", word) for word in words)
            if entry["operation"] == "exp_table":
                continue
            assert {len(word) for word in entry["expected"].split()} <= {8, 16}
        if path.name == "models.json":
            eps = dict(entry["given"])["eps"]
            assert 0 < np.frombuffer(bytes.fromhex(eps), ">f8")[0] < 1e-3
    assert lengths == {8, 16}
    assert "binary32 numbers 8 hexadecimal digits" in SPECIFICATION


def test_masking_goes_through_the_columns_from_the_first_hidden_key_to_the_last(monkeypatch):
    copied = np.copyto
    columns = []

    def watched(destination, value, where):
        columns.append(destination.shape[-1])
        copied(destination, value, where=where)

    monkeypatch.setattr(np, "copyto", watched)
    hidden = np.zeros((3, 9), bool)
    hidden[0, 4] = hidden[2, 6] = True
    masked_in_place(np.zeros((2, 3, 9)), hidden)
    assert columns == [3]


def test_an_array_of_one_element_becomes_the_same_python_float():
    one = np.array([[1 / 3]])
    assert type(on_numpy.scalar(one)) is float
    assert on_numpy.scalar(one) == one[0, 0]
    two = np.ones((1, 2))
    assert on_numpy.scalar(two) is two


@pytest.mark.parametrize(
    ("distance", "asked"),
    [(0, 1), (0.9, 1), (1.1, 0), (-0.4, 1), (-0.6, 0), (2.0**29, 0)],
)
def test_a_total_is_taken_next_to_a_power_of_two_alone(distance, asked):
    """Below one by half as much, relative to it: the distance is of the power below."""
    assert "is within 2<sup>-30</sup> relative of a power of two." in SPECIFICATION
    taken = []

    class Asked(NumpyExact):
        def total(self, size):
            taken.append(size)
            return super().total(size)

    row_sum = 64 / (1 + 2.0**-9) * (1 + distance * 2.0**-30)
    Asked(64).grid(np.array([[row_sum]]), row_sum, 32)
    assert len(taken) == asked


def test_the_sum_of_a_longest_row_is_rounded_by_less_than_what_is_in_doubt():
    """At most 2**20 roundings of 2**-53 of it each."""
    assert "2**20 * 2**-53 relative" in told(NumpyExact.grid)
    assert exact.LONGEST == 2**20
    assert exact.LONGEST * 2.0**-53 < 2.0**-31

"""Every arithmetic that has a name: it says what it is, keeps shapes, and decodes."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.arithmetic import ACTIVATIONS, ARITHMETICS, Arithmetic, Sight, get_arithmetic
from minikv.errors import InputError

TOKENS, HEADS, GROUPS, WIDTH, KEYS = 3, 4, 2, 6, 9


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request):
    return get_arithmetic(request.param, 64)


def drawn(arithmetic, *shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(arithmetic.dtype)


def test_an_arithmetic_says_its_name_and_how_wide_its_numbers_are(arithmetic):
    assert ARITHMETICS[arithmetic.name](np, 64).name == arithmetic.name
    assert get_arithmetic(arithmetic) is arithmetic
    assert np.dtype(arithmetic.dtype).itemsize == arithmetic.itemsize
    assert np.dtype(arithmetic.wide).itemsize >= arithmetic.itemsize


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_weights_and_turns_of_float32_are_taken_in_the_arithmetics_own_precision(name):
    arithmetic = get_arithmetic(name, 64)
    matrix = np.ones((2, 3), np.float16)
    assert arithmetic.weight(matrix, "w").dtype == arithmetic.dtype
    angles = np.random.default_rng(0).uniform(0, 60, 4000).astype(np.float32)
    wide = angles.astype(np.float64)
    assert_same_bits(arithmetic.cos(angles), np.cos(wide).astype(arithmetic.wide))
    assert_same_bits(arithmetic.sin(angles), np.sin(wide).astype(arithmetic.wide))


def test_an_unknown_arithmetic_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=", ".join(map(repr, ARITHMETICS))):
        get_arithmetic("float8")


def test_each_part_of_a_block_keeps_its_shape_and_type(arithmetic):
    x = drawn(arithmetic, TOKENS, 10)
    heads = drawn(arithmetic, TOKENS, HEADS, WIDTH)
    turn = np.ones((TOKENS, 1, WIDTH), arithmetic.wide)
    made = {
        (TOKENS, 7): [arithmetic.linear(x, arithmetic.weight(drawn(arithmetic, 7, 10), "w"))],
        (TOKENS, 10): [
            arithmetic.rms_norm(x, np.ones(10, arithmetic.wide), 1e-5),
            *(arithmetic.gated(x, x, activation) for activation in ACTIVATIONS),
        ],
        (TOKENS, HEADS, WIDTH): [arithmetic.rope(heads, turn, turn), arithmetic.settle(heads)],
    }
    for shape, arrays in made.items():
        for array in arrays:
            assert (array.shape, array.dtype) == (shape, arithmetic.dtype)


def test_each_sum_has_the_shape_and_the_type_that_it_is_said_to_have(arithmetic):
    x = drawn(arithmetic, TOKENS, 10)
    q = drawn(arithmetic, TOKENS, HEADS, WIDTH)
    k = arithmetic.settle(drawn(arithmetic, KEYS, GROUPS, WIDTH))
    scores = arithmetic.scores(q, k, 0.4)
    pattern = arithmetic.softmax(scores)
    made = [
        (arithmetic.mean_square(x), (TOKENS, 1), arithmetic.wide),
        (scores, (HEADS, TOKENS, KEYS), arithmetic.wide),
        (pattern, (HEADS, TOKENS, KEYS), arithmetic.wide),
        (arithmetic.weighted_sum(pattern, k), (TOKENS, HEADS, WIDTH), arithmetic.dtype),
    ]
    wide = arithmetic.widen(x)
    made += [(f(wide), x.shape, arithmetic.wide) for f in (arithmetic.exp, arithmetic.sin)]
    made += [(arithmetic.cos(wide), x.shape, arithmetic.wide)]
    for array, shape, dtype in made:
        assert (array.shape, array.dtype) == (shape, dtype)
    assert_same_bits(arithmetic.settle(k), k)
    assert_same_bits(arithmetic.settle(drawn(arithmetic, KEYS, GROUPS, WIDTH)[2:3, 1:]), k[2:3, 1:])
    table = drawn(arithmetic, 7, 10)
    assert_same_bits(arithmetic.lookup(table, np.array([6, 0, 6])), table[[6, 0, 6]])


@pytest.mark.parametrize("rows", [1, 3])
def test_several_products_of_the_same_rows_have_the_bits_of_each(arithmetic, rows):
    x = drawn(arithmetic, rows, 10)
    weights = [arithmetic.weight(drawn(arithmetic, n, 10), "w") for n in (7, 4)]
    for product, weight in zip(arithmetic.linears(x, *weights), weights, strict=True):
        assert_same_bits(product, arithmetic.linear(x, weight))


@pytest.mark.parametrize("window", [None, 2])
def test_a_key_that_is_not_seen_changes_nothing(arithmetic, window):
    q = drawn(arithmetic, TOKENS, HEADS, WIDTH)
    k, v = (arithmetic.settle(drawn(arithmetic, KEYS, GROUPS, WIDTH)) for _ in "kv")
    sight = Sight(np.array([3, 4, 5]), np.arange(KEYS), window)
    before = arithmetic.attention(q, k, v, sight, 0.4)
    hidden = np.arange(KEYS) > 5
    if window:
        hidden |= np.arange(KEYS) < 2
    k[hidden], v[hidden] = -k[hidden], 2 * v[hidden]
    assert (arithmetic.attention(q, k, v, sight, 0.4) == before).all()
    k[5] = -k[5]  # the control: the last query sees it, and it alone
    after = arithmetic.attention(q, k, v, sight, 0.4)
    assert (after[-1] != before[-1]).any()
    assert (after[:-1] == before[:-1]).all()


def test_a_model_decodes_with_a_cache(arithmetic):
    model = minikv.random_model(minikv.tiny_config(), 1, arithmetic.name)
    assert model.logits([1, 2, 3]).dtype == arithmetic.dtype
    assert len(list(model.generate([1, 2, 3], 5, stop=()))) == 5


def test_the_same_call_gives_the_same_bits(arithmetic):
    x, w = drawn(arithmetic, 33, 300), drawn(arithmetic, 70, 300)
    weight = arithmetic.weight(w, "w")
    first = arithmetic.linear(x, weight)
    for _ in range(3):
        assert_same_bits(arithmetic.linear(x.copy(), weight), first)


def test_what_adds_across_elements_is_left_to_each_arithmetic():
    """And nothing else of a block is: the rest is written once, from these."""
    written = Arithmetic.__abstractmethods__
    assert written >= {"linear", "mean_square", "scores", "softmax", "weighted_sum"}
    assert not written & {"rms_norm", "rope", "gated", "attention", "masked", "linears"}


def test_products_of_float32_are_those_of_numpys_blas():
    rng = np.random.default_rng(0)
    for shape in ((5, 48), (64, 300)):
        x = rng.standard_normal(shape, dtype=np.float32)
        matrix = rng.standard_normal((33, shape[1]), dtype=np.float32)
        float32 = get_arithmetic("float32", 64)
        assert_same_bits(float32.linear(x, float32.weight(matrix, "w")), x @ matrix.T)


def test_float64_keeps_what_float32_cannot():
    """Of a weight, of a row, and in their product; float32 loses it."""
    third = np.full((1, 1), 1 / 3)
    for name, kept in (("float64", 1 / 9), ("float32", float(np.float32(1 / 3) ** 2))):
        arithmetic = get_arithmetic(name, 64)
        row = third.astype(arithmetic.dtype)
        weight = arithmetic.weight(third, "w")
        assert arithmetic.linear(row, weight)[0, 0] == arithmetic.dtype(kept)
        assert (float(weight[0, 0]) == 1 / 3) == (name == "float64")

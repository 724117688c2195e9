"""Looking at activations and replacing them, and how far apart two answers are."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from bits import assert_same_bits, same_bits

import minikv
from minikv import decoder, patching
from minikv.errors import InputError

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def test_looking_changes_nothing():
    """Hooks make attention one block of queries; 300 are three without them."""
    model = minikv.random_model(
        minikv.tiny_config(max_position_embeddings=512), seed=1, arithmetic="exact"
    )
    text = np.random.default_rng(1).integers(0, 97, 300).tolist()
    assert_same_bits(model.run_with_cache(text)[0], model.logits(text))


def written_order(text: str) -> list[tuple[str, str]]:
    """Names and shapes in the docstring's columns: what comes before block l, it, what follows."""
    table = text.partition("::\n")[2].partition("\n``")[0]
    left = []
    right = []
    for line in table.splitlines():
        for found in re.finditer(r"(\S*hook\w*)\s+\((.*?)\)", line):
            column = right if found.start() > 45 else left
            column.append((found[1].replace("blocks.l.", "blocks.0."), found[2]))
    return [*left[:-1], *right, left[-1]]


def test_the_docstring_names_every_activation_in_its_order_and_shape():
    passed = []

    def note(name, value):
        if not name.startswith("blocks.1."):
            passed.append((name, value.shape))
        return value

    config = EXACT.config
    decoder.forward(EXACT.weights, [TEXT[:5]], logits="all", hook=note)
    letters = {
        "T": 5,
        "S": 5,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "H": config.num_attention_heads,
        "G": config.num_key_value_heads,
        "d": config.head_dim,
    }

    def written(text):
        return [
            (name, tuple(letters[letter] for letter in shape.split(", ")))
            for name, shape in written_order(text)
        ]

    text = patching.__doc__
    assert written(text) == passed
    swapped = text.replace("attn.hook_v ", "?").replace("attn.hook_rot_k", "attn.hook_v")
    swapped = swapped.replace("?", "attn.hook_rot_k ")
    assert sorted(written(swapped)) == sorted(passed)
    assert written(swapped) != passed


@pytest.mark.parametrize("name", list(EXACT.run_with_cache([1])[1]))
def test_every_activation_can_be_replaced(name):
    """Each is on the way to the logits: moving it moves them. None leaves it alone."""
    before = EXACT.logits(TEXT[:8])
    assert_same_bits(EXACT.run_with_hooks(TEXT[:8], {name: lambda value, _: None}), before)
    assert_same_bits(EXACT.run_with_hooks(TEXT[:8], {name: lambda value, _: value.copy()}), before)
    rng = np.random.default_rng(0)

    def moved(value, _):
        return value * rng.uniform(0.5, 1.5, value.shape)

    with np.errstate(invalid="ignore"):  # masked scores stay -inf
        assert not same_bits(EXACT.run_with_hooks(TEXT[:8], {name: moved}), before)


def test_a_hook_is_given_its_name_and_may_return_another_dtype():
    names = []

    def zero(value, name):
        names.append(name)
        return np.zeros(value.shape, dtype=np.float64)

    hook = {"blocks.1.hook_resid_pre": zero}
    assert EXACT.run_with_hooks(TEXT, hook).dtype == np.float32
    assert names == ["blocks.1.hook_resid_pre"]


def test_what_a_hook_returns_in_float64_is_rounded_to_float32():
    name = "blocks.1.hook_resid_pre"
    wide = {name: lambda value, _: value.astype(np.float64) / 3}
    narrow = {name: lambda value, _: (value.astype(np.float64) / 3).astype(np.float32)}
    assert_same_bits(EXACT.run_with_hooks(TEXT, wide), EXACT.run_with_hooks(TEXT, narrow))
    noted = []
    after = {"blocks.1.hook_resid_mid": lambda value, _: noted.append(value.dtype)}
    EXACT.run_with_hooks(TEXT, wide | after)
    assert noted == [np.float32]


WRONG_HOOKS = [
    ({"blocks.2.hook_resid_pre": lambda v, n: v}, "names no activation; run_with_cache"),
    ({"hook_embedding": lambda v, n: v}, "'hook_embedding' names no activation"),
    ({"hook_embed": lambda v, n: v[:-1]}, r"returned shape \(23, 24\), expected \(24, 24\)"),
    ({"hook_embed": lambda v, n: np.float32(0)}, r"returned shape \(\), expected"),
    ({"hook_embed": lambda v: v}, r"hook_embed is no function .* expected hook\(value, name\)"),
    ({"hook_embed": 3}, "hook_embed is no function"),
    ({"hook_embed": lambda v, n: v + 1j}, "returned complex64, expected real numbers"),
    ({"hook_embed": lambda v, n: v.tolist()}, r"returned shape list, expected \(24, 24\)"),
]


@pytest.mark.parametrize(("hooks", "message"), WRONG_HOOKS)
def test_wrong_hooks_are_named(hooks, message):
    with pytest.raises(InputError, match=message):
        EXACT.run_with_hooks(TEXT, hooks)


def test_a_hook_that_names_nothing_is_named_beside_one_that_names_something():
    def same(value, name):
        return value

    with pytest.raises(InputError, match=r"hook 'blocks\.9\.hook_mlp_out' names no activation"):
        EXACT.run_with_hooks(TEXT, {"hook_embed": same, "blocks.9.hook_mlp_out": same})


def test_kl_divergence_is_zero_for_the_same_and_positive_for_another():
    logits = EXACT.logits(TEXT)
    assert (minikv.kl_divergence(logits, logits) == 0).all()
    other = minikv.kl_divergence(logits, logits[::-1])
    assert other.shape == (24,)
    assert (other > 0).all()
    p, q = np.log([0.75, 0.25]), np.log([0.5, 0.5])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    # Six correctly rounded operations on numbers below 2, and logarithms good to 1 ulp.
    assert abs(minikv.kl_divergence(p, q) - expected) < 20 * 2.0**-53
    assert minikv.kl_divergence(p + 7, q - 3) == pytest.approx(
        expected, rel=1e-14
    )  # a shift: 1e-15


def test_kl_divergence_of_float32_is_that_of_the_same_float64():
    logits = np.random.default_rng(1).normal(size=(20, 97)).astype(np.float32)
    wide = logits.astype(np.float64)
    expected = minikv.kl_divergence(wide, wide[::-1])
    assert_same_bits(minikv.kl_divergence(logits, logits[::-1]), expected)


def test_kl_divergence_does_not_follow_the_layout():
    logits = np.random.default_rng(0).normal(size=(20, 97)).astype(np.float32)
    assert (minikv.kl_divergence(np.asfortranarray(logits), logits) == 0).all()


@pytest.mark.filterwarnings("error")
def test_kl_divergence_of_tokens_that_cannot_come():
    """A logit of -inf is a probability of 0, and 0 log 0 is 0."""
    inf = math.inf
    p = np.array([0.0, -inf, 0.0])
    assert minikv.kl_divergence(p, p) == 0.0
    assert minikv.kl_divergence(p, np.array([0.0, 0.0, 0.0])) == pytest.approx(math.log(1.5))
    assert minikv.kl_divergence(np.array([0.0, 0.0, 0.0]), p) == inf
    assert minikv.kl_divergence(np.array([0.0, -inf, -inf]), np.array([-inf, 0.0, 0.0])) == inf
    rows = np.array([[0.0, -inf], [-inf, 0.0]])
    assert minikv.kl_divergence(rows, rows).tolist() == [0.0, 0.0]
    # What is so unlikely that its probability is 0 in float64 adds nothing either.
    assert minikv.kl_divergence(np.array([0.0, -800.0]), np.array([0.0, -inf])) == 0.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_kl_divergence_of_what_is_no_distribution_is_nan(wrong):
    right = np.array([0.0, 1.0])
    for row in (np.array([wrong, 0.0]), np.array([-math.inf, -math.inf])):
        assert math.isnan(minikv.kl_divergence(row, right))
        assert math.isnan(minikv.kl_divergence(right, row))

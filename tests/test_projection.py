"""Keys and values come from the stream by one function, and attention reads what it gives."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits, same_bits

import minikv
from minikv.config import FAMILIES

PACKAGE = Path(minikv.__file__).parent
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def model_of(family: str) -> minikv.Model:
    return minikv.random_model(minikv.tiny_config(model_type=family), 1, "exact")


def readers(source: str, names: set[str]) -> set[str]:
    """Which attributes of these names a source text reads."""
    nodes = ast.walk(ast.parse(source))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} & names


LOOKING_ON = {"verify", "experiments", "paper"}  # nothing decodes with what they read


def test_one_file_reads_the_matrices_of_keys_and_values():
    """Prompt, decoding and recomputation have no other way to make them; others look on."""
    names = {"k_proj", "v_proj", "k_bias", "v_bias", "k_norm"}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if LOOKING_ON.isdisjoint(path.relative_to(PACKAGE).parts)
        and readers(path.read_text(encoding="utf-8"), names)
    }
    assert found == {"projection.py"}
    assert readers("x @ layer.k_proj.T", names) == {"k_proj"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_holds_what_the_stream_projects_to_in_any_order(family):
    model = model_of(family)
    _, seen = model.run_with_cache(TEXT)
    cache = model.new_cache()
    for token in TEXT:
        model.forward([[token]], [cache], logits="none")
    held = cache.state()[0]
    order = np.random.default_rng(1).permutation(len(TEXT))[:9]
    for layer in model.layers:
        rows = seen[f"blocks.{layer.index}.hook_resid_pre"][order]
        k, v = minikv.kv_from_residual(rows, order, layer)
        assert_same_bits(k, held[f"k.{layer.index}"][order], "keys")
        assert_same_bits(v, held[f"v.{layer.index}"][order], "values")
        moved, _ = minikv.kv_from_residual(rows, order + 1, layer)
        assert not same_bits(moved, k)


NAMES = {"k": "blocks.1.attn.hook_rot_k", "v": "blocks.1.attn.hook_v"}


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_values_after_their_last_hook_are_what_is_remembered(name):
    model, seen = model_of("llama"), {}

    def keep(called, value):
        seen[called] = value
        return value

    cache = model.new_cache()
    model.forward([TEXT], [cache], hook=keep)
    assert_same_bits(cache.state()[0][f"{name}.1"], seen[NAMES[name]])


@pytest.mark.parametrize("name", NAMES)
def test_what_a_hook_puts_in_their_place_is_moved_to_the_grid_of_attention(name):
    """Else sums over it would not be exact."""
    model = model_of("llama")
    given = np.random.default_rng(2).normal(size=(len(TEXT), 2, 6)).astype(np.float32)
    on_the_grid = model.arithmetic.settle(given)
    assert not same_bits(on_the_grid, given)

    def replace(called, value):
        return given if called == NAMES[name] else value

    cache = model.new_cache()
    model.forward([TEXT], [cache], hook=replace)
    assert_same_bits(cache.state()[0][f"{name}.1"], on_the_grid)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_that_a_hook_changes_is_moved_to_the_grid_whichever_it_is(name):
    """Not only where all are, or the first is, another array's."""
    model = model_of("llama")
    for row in range(len(TEXT)):
        expected = {}

        def replace(called, value, row=row, expected=expected):
            if called != NAMES[name]:
                return value
            value = value.copy()
            value[row] *= np.float32(1 / 3)
            expected["rows"] = model.arithmetic.settle(value)
            assert not same_bits(expected["rows"][row], value[row])
            return value

        cache = model.new_cache()
        model.forward([TEXT], [cache], hook=replace)
        assert_same_bits(cache.state()[0][f"{name}.1"], expected["rows"])


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_and_keys_are_products_with_bias_norm_and_turn_as_the_family_has_them(family):
    model = model_of(family)
    _, seen = model.run_with_cache(TEXT)
    positions = np.arange(len(TEXT))
    eps = model.config.rms_norm_eps
    traits = set()
    for layer in model.layers:
        block = f"blocks.{layer.index}."
        x = seen[block + "ln1.hook_normalized"]
        for name in "qk":
            weights = [getattr(layer, f"{name}_{part}") for part in ("proj", "bias", "norm")]
            made = layer.linear(x, weights[0])
            if weights[1] is not None:
                traits.add("bias")
                made = made + weights[1]
            heads = made.reshape(len(TEXT), -1, model.config.head_dim)
            assert_same_bits(seen[block + f"attn.hook_{name}"], heads)
            if weights[2] is not None:
                traits.add("norm")
                heads = model.arithmetic.rms_norm(heads, weights[2], eps)
            turned = layer.turned(heads, positions)
            expected = turned if name == "q" else model.arithmetic.settle(turned)
            assert_same_bits(seen[block + f"attn.hook_rot_{name}"], expected)
    expected = {"qwen2": {"bias"}, "qwen3": {"norm"}, "gemma3_text": {"norm"}}
    assert traits == expected.get(family, set())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_value_is_a_product_of_its_normed_row_with_a_bias_where_the_family_has_one(family):
    model = model_of(family)
    _, seen = model.run_with_cache(TEXT)
    for layer in model.layers:
        block = f"blocks.{layer.index}."
        made = layer.linear(seen[block + "ln1.hook_normalized"], layer.v_proj)
        if layer.v_bias is not None:
            made = made + layer.v_bias
        heads = made.reshape(len(TEXT), -1, model.config.head_dim)
        assert_same_bits(seen[block + "attn.hook_v"], model.arithmetic.settle(heads))

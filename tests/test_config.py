"""The numbers of a configuration fit together, or are refused by name."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from minikv import RopeScaling, tiny_config
from minikv.config import FAMILIES, FULL, SLIDING, expected_shapes
from minikv.errors import ConfigError
from minikv.families import Family

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_types": SLIDING}, "layer_types"),
        ({"layer_types": 5}, "layer_types"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"model_type": []}, "model_type"),
        ({"eos_token_id": "5"}, "eos_token_id"),
        ({"query_pre_attn_scalar": 10**400}, "query_pre_attn_scalar"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(**change)


def test_a_list_and_a_single_id_are_kept_as_tuples():
    config = tiny_config(layer_types=[SLIDING] * 2, sliding_window=2, eos_token_id=5)
    assert (config.layer_types, config.eos_token_id) == ((SLIDING,) * 2, (5,))
    assert config.window(0) == 2


@pytest.mark.parametrize(
    "numbers",
    [(-1.0,), ("8",), (0,), (float("nan"),), (8.0, 1.0), (8.0, 4.0, 1.0, 32), (8.0, 1.0, 4.0, 0.5)],
)
def test_rotary_scaling_is_checked_where_it_is_made(numbers):
    with pytest.raises(ConfigError, match="RoPE"):
        RopeScaling(*numbers)


def test_numpys_whole_numbers_are_numbers_of_a_configuration():
    config = tiny_config(num_hidden_layers=np.int64(2))
    assert type(config.num_hidden_layers) is int


def test_layers_are_full_where_nothing_says_that_they_slide():
    config = tiny_config(sliding_window=2)
    assert config.layer_types == (FULL, FULL)
    assert not config.slides
    assert [config.window(layer) for layer in range(2)] == [None, None]
    mixed = replace(config, layer_types=(FULL, SLIDING))
    assert mixed.slides
    assert [mixed.window(layer) for layer in range(2)] == [None, 2]


def test_another_number_of_layers_needs_their_types():
    with pytest.raises(ConfigError, match="layer_types names 2 layers, num_hidden_layers is 3"):
        replace(tiny_config(), num_hidden_layers=3)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_as_every_familys_equation_has_them(kind, tied):
    """By hand: D = 24, H * d = 24, G * d = 12, F = 40, V = 97, two blocks."""
    config = tiny_config(model_type=kind, tie_word_embeddings=tied)
    layer = 24 * 24 + 12 * 24 + 12 * 24 + 24 * 24  # q, k, v, o
    layer += 3 * 24 * 40 + 2 * 24  # gate, up, down; two norms
    layer += {"qwen2": 24 + 12 + 12, "qwen3": 2 * 6, "gemma3_text": 2 * 6 + 2 * 24}.get(kind, 0)
    assert config.num_parameters == 97 * 24 * (1 if tied else 2) + 2 * layer + 24
    assert config.num_parameters == sum(map(math.prod, expected_shapes(config).values()))


def test_the_names_of_tensors_are_those_of_the_specification():
    page = (ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    section = page.partition("### 6.1 ")[2].partition("\n## ")[0]
    listed = set()
    for line in re.findall(r"(?m)^ {4}(.*)$", section):
        folder = kind = ""
        for item in re.sub(r"\(.*?\)|#.*", "", line).split(","):
            name = item.strip()
            if "." in name:
                folder, _, kind = name.rpartition(".")
                folder = folder.rpartition(".")[0]
                listed.add(name)
            else:
                listed.add(f"{folder}.{name}.{kind}".lstrip("."))
    taken = set()
    for family in FAMILIES:
        config = tiny_config(model_type=family, num_hidden_layers=1, tie_word_embeddings=False)
        taken |= {name.removeprefix("model.layers.0.") for name in expected_shapes(config)}
    assert "model.norm.weight" in taken
    assert "input_layernorm.weight" in taken
    assert listed == taken


def test_what_a_family_does_is_a_line_of_code_with_the_fields_name():
    modules = [path for path in (ROOT / "minikv").glob("*.py") if path.name != "families.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    for field in fields(Family):
        assert f"family.{field.name}" in code

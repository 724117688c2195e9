"""``minikv inspect``: what it counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import minikv


def test_inspect_counts_what_is_in_the_folder(run, tiny):
    code, out, err = run("inspect", tiny, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    stored = load_file(tiny / "model.safetensors")
    assert figures["parameters"] == sum(tensor.size for tensor in stored.values())
    assert {t["name"]: tuple(t["shape"]) for t in figures["tensors"]} == {
        name: tensor.shape for name, tensor in stored.items()
    }
    # 3 layers, 2 K/V heads of 8, width 48
    assert figures["bytes_per_token"]["full_kv"] == {"float32": 3 * 2 * 2 * 8 * 4, "bfloat16": 192}
    assert figures["bytes_per_token"]["one_residual"] == {"float32": 192, "bfloat16": 96}
    assert figures["bytes_per_token"]["residual_per_layer"] == {"float32": 576, "bfloat16": 288}
    text = run("inspect", tiny)[1]
    assert f"{figures['parameters']:,} parameters" in text
    assert "model.layers.{0..2}.self_attn.k_proj.weight" in text
    assert "model.layers.1.self_attn.k_proj.weight" in run("inspect", tiny, "--tensors")[1]


@pytest.mark.parametrize("arithmetic", ["float32", "float64", "exact"])
def test_inspect_tells_the_bytes_that_a_weight_takes(run, tiny, arithmetic):
    told = json.loads(run("inspect", tiny, "--json")[1])["bytes_per_weight"][arithmetic]
    lm_head = minikv.load(tiny, arithmetic).weights.lm_head  # 320 x 48
    arrays = [lm_head] if isinstance(lm_head, np.ndarray) else vars_of(lm_head)
    largest = max(arrays, key=lambda array: array.size)
    assert largest.shape == (320, 48) or largest.T.shape == (320, 48)
    assert largest.itemsize == told


def vars_of(prepared: object) -> list[np.ndarray]:
    values = prepared if isinstance(prepared, tuple) else vars(prepared).values()
    return [value for value in values if isinstance(value, np.ndarray)]

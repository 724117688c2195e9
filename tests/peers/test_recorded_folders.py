"""transformers loads the folders that minikv loads, as the same model: names, ties and tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layerwise import peer_modules
from safetensors.numpy import save_file

import minikv

torch, transformers = peer_modules()
pytestmark = pytest.mark.peers

EMBEDDING = "model.embed_tokens.weight"
IDS = [5, 6, 7, 8]
Tensors = dict[str, np.ndarray]


def as_saved(tensors: Tensors) -> Tensors:
    return tensors


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def with_one_more(tensors: Tensors) -> Tensors:
    return {f"model.{name}": tensor for name, tensor in tensors.items()}


def head_alone(tensors: Tensors) -> Tensors:
    rest = {name: tensor for name, tensor in tensors.items() if name != EMBEDDING}
    return rest | {"lm_head.weight": tensors[EMBEDDING]}


def with_tables(tensors: Tensors) -> Tensors:
    attention = "model.layers.0.self_attn"
    return tensors | {
        f"{attention}.rotary_emb.inv_freq": np.ones(3, np.float32),
        f"{attention}.rotary_emb.cos_cached": np.ones((1, 1, 8, 6), np.float64),
        "model.position_ids": np.arange(8),
        f"{attention}.bias": np.ones((8, 8), bool),
    }


@pytest.mark.parametrize(
    "change", [as_saved, without_prefix, with_one_more, head_alone, with_tables]
)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_same_folder_is_the_same_model(
    tmp_path: Path, change: Callable[[Tensors], Tensors], kind: str
):
    config = minikv.tiny_config(model_type=kind)
    tensors = dict(minikv.random_tensors(config, 1))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(change(tensors), tmp_path / "model.safetensors", {"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor([IDS])).logits[0].numpy()
    got = minikv.load(tmp_path, "float64").logits(IDS)
    # Both in float64; what differs are frequencies and cosines, which transformers has in float32.
    assert np.abs(got - expected).max() < 1e-5
    wrong = minikv.random_model(config, 2, "float64").logits(IDS)
    assert np.abs(wrong - expected).max() > 1e-2  # the bound sees another model

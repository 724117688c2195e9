"""Models and texts on which the extracted decoder is compared with the Python."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minikv import Model, ModelConfig, RopeScaling, build, load, random_tensors
from minikv.config import FAMILIES, FULL, SLIDING
from minikv.fingerprint import PROMPT
from minikv.weights import load_tensors

CONTEXT = 48  # tokens of a random model


@dataclass(frozen=True)
class Case:
    """A model, twice: as tensors, for the extracted decoder, and as Python has it; and a text."""

    name: str
    config: ModelConfig
    tensors: Mapping[str, np.ndarray]
    ids: Sequence[int]
    model: Model


def random_config(seed: int) -> ModelConfig:
    """All families in turn, one to four blocks, windows, MHA, GQA and MQA, odd sizes, tied or not.

    And rotations scaled in either way, with a base of their own in sliding layers.
    """
    choose = random.Random(seed)
    groups = choose.randint(1, 3)
    layers = choose.randint(1, 4)
    model_type = tuple(FAMILIES)[seed % len(FAMILIES)]
    windowed = choose.random() < 0.5
    return ModelConfig(
        vocab_size=choose.randint(5, 61),
        hidden_size=choose.randint(2, 41),
        intermediate_size=choose.randint(1, 53),
        num_hidden_layers=layers,
        num_attention_heads=groups * choose.randint(1, 3),
        num_key_value_heads=groups,
        head_dim=2 * choose.choice([1, 2, 3, 5, 8]),
        max_position_embeddings=CONTEXT,
        rms_norm_eps=choose.choice([1e-6, 1e-5, 1e-2]),
        rope_theta=choose.choice([2.0, 1e4, 1e6]),
        rope_scaling=choose.choice([None, RopeScaling(8.0), RopeScaling(4.0, 1.0, 4.0, 6)]),
        rope_local_base_freq=choose.choice([None, 1e2]),
        query_pre_attn_scalar=choose.choice([None, 3.0]),
        tie_word_embeddings=choose.random() < 0.5,
        model_type=model_type,
        layer_types=tuple(choose.choice([FULL, SLIDING]) for _ in range(layers)) * windowed,
        sliding_window=choose.randint(1, 8),
    )


def random_case(seed: int, special: bool = False) -> Case:
    """A random model and text; if `special`, with zeros of both signs, subnormals and the like."""
    config = random_config(seed)
    choose = random.Random(seed)
    scale = choose.choice([1e-12, 0.1, 1.0, 1.0, 3.0, 100.0])
    tensors = random_tensors(config, seed, scale)
    if special:
        tensors = {name: _special(name, tensor, seed) for name, tensor in tensors.items()}
    length = choose.choice([1, 3, 9, 17, CONTEXT])
    ids = [choose.randrange(config.vocab_size) for _ in range(length)]
    model = Model(build(config, tensors, "exact"))
    return Case(f"random model {seed} ({config.model_type})", config, tensors, ids, model)


def _special(name: str, tensor: np.ndarray, seed: int) -> np.ndarray:
    if tensor.ndim != 2:
        return tensor
    changed = tensor.copy()
    uniform = np.random.default_rng([seed, len(name)]).random
    changed[uniform(changed.shape) < 0.1] = -0.0
    changed[uniform(changed.shape) < 0.05] *= np.float32(1e-41)
    changed[uniform(len(changed)) < 0.1] = 0.0
    changed[uniform(len(changed)) < 0.1] *= np.float32(1e6)
    # a row's outputs underflow, where activations are small
    changed[uniform(len(changed)) < 0.2] *= np.float32(1e-23)
    # rows whose largest number is a power of two
    _, exponents = np.frexp(np.abs(changed).max(axis=1))
    chosen = uniform(len(changed)) < 0.3
    changed[chosen, 0] = np.ldexp(np.float32(1.0), exponents[chosen])
    return changed


def folder_case(name: str | Path, ids: Sequence[int] | None = None) -> Case:
    """A fetched model or a folder; by default the text that ``minikv fingerprint`` reads."""
    model = load(name, "exact")
    assert model.folder is not None
    if ids is None:
        assert model.tokenizer is not None
        ids = model.tokenizer.encode(PROMPT)
    tensors = load_tensors(model.folder, model.config)
    return Case(str(name), model.config, tensors, ids, model)

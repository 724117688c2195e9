"""The other families against transformers: 20 random tiny models each, layer by layer."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from layerwise import (
    first_divergence,
    in_float64,
    peer_modules,
    rms,
    rounded_once,
    torch_activations,
)

import minikv
from minikv.caches import make_cache
from minikv.patching import run_with_cache
from minikv.rotary import rope_frequencies

torch, transformers = peer_modules()
pytestmark = pytest.mark.peers

CLASSES = {
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "gemma3_text": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}
CASES = [(family, seed) for family in CLASSES for seed in range(20)]
WINDOWED = {"mistral": 0, "qwen2": 1, "qwen3": 1, "gemma3_text": 0}  # a seed with a window


def random_config(family: str, seed: int) -> Any:
    """A tiny configuration of a family; windows are shorter than most prompts."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    heads = groups * int(rng.integers(1, 4))
    head_dim = 2 * int(rng.integers(2, 9))
    layers, window = int(rng.integers(1, 8)), int(rng.integers(1, 20))
    theta = float(10 ** rng.uniform(2, 6))
    numbers: dict[str, Any] = {
        "vocab_size": int(rng.integers(17, 150)),
        "hidden_size": heads * head_dim,
        "intermediate_size": int(rng.integers(7, 90)),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "max_position_embeddings": 128,
        "rms_norm_eps": float(10 ** rng.uniform(-7, -3)),
        "tie_word_embeddings": bool(seed % 2),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn_implementation": "sdpa",
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }
    if family == "qwen2":  # has no head_dim of its own
        del numbers["head_dim"]
    else:
        numbers["hidden_size"] = heads * 2 * int(rng.integers(2, 9))
    if family == "mistral":
        numbers["sliding_window"] = window if seed % 4 < 3 else None
    elif family == "gemma3_text":
        full = {"rope_type": "linear", "factor": 8.0} if seed % 3 == 0 else {"rope_type": "default"}
        numbers |= {
            "sliding_window": window,
            "query_pre_attn_scalar": int(rng.integers(4, 300)),
            "rope_parameters": {
                "full_attention": {**full, "rope_theta": theta},
                "sliding_attention": {"rope_type": "default", "rope_theta": theta / 7},
            },
        }
        if seed % 2:
            numbers["layer_types"] = [
                ("full_attention", "sliding_attention")[int(x)] for x in rng.integers(0, 2, layers)
            ]
    elif seed % 2:  # Qwen's first layers see everything
        numbers |= {
            "use_sliding_window": True,
            "sliding_window": window,
            "max_window_layers": int(rng.integers(0, layers)),
        }
    return CLASSES[family][0](**numbers)


@cache
def random_peer(family: str, seed: int) -> Any:
    """A float32 model whose weights keep every activation of order one; do not change it."""
    peer = CLASSES[family][1](random_config(family, seed)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                one = name.endswith("norm.weight") and family != "gemma3_text"
                parameter.copy_(one + 0.3 * draw)
            elif name == "model.embed_tokens.weight":
                parameter.copy_(draw)
            else:
                parameter.copy_(draw / math.sqrt(parameter.shape[1]))
    return peer


def ours(peer: Any, arithmetic: str, **changes: Any) -> Any:
    config = replace(minikv.ModelConfig.from_dict(peer.config.to_dict()), **changes)
    tensors = {name: value.numpy().copy() for name, value in peer.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return minikv.build(config, tensors, arithmetic)


def prompt(peer: Any, seed: int) -> list[int]:
    rng = np.random.default_rng(1000 + seed)
    return rng.integers(0, peer.config.vocab_size, int(rng.integers(30, 70))).tolist()


@cache
def truth(family: str, seed: int) -> tuple[Any, dict[str, np.ndarray]]:
    """Logits and activations of transformers in float64."""
    import copy

    peer = copy.deepcopy(random_peer(family, seed))
    config = minikv.ModelConfig.from_dict(peer.config.to_dict())
    peer = in_float64(peer, rope_frequencies(config), rope_frequencies(config, local=True))
    return torch_activations(peer, prompt(peer, seed))


def distance(family: str, seed: int, **changes: Any) -> float:
    peer = random_peer(family, seed)
    logits = minikv.forward(ours(peer, "float64", **changes), [prompt(peer, seed)], logits="all")
    return float(np.abs(logits - truth(family, seed)[0]).max())


def test_the_draw_covers_every_feature():
    for family in CLASSES:
        configs = [
            minikv.ModelConfig.from_dict(random_config(family, seed).to_dict())
            for seed in range(20)
        ]
        assert {config.model_type for config in configs} == {family}
        windows = [
            {config.window(i) is None for i in range(config.num_hidden_layers)}
            for config in configs
        ]
        assert {True} in windows
        assert any(False in kinds for kinds in windows)
        assert {config.tie_word_embeddings for config in configs} == {True, False}
        for config in configs:
            assert minikv.ModelConfig.from_dict(config.to_dict()) == config
            again = CLASSES[family][0](**config.to_dict())  # and transformers reads ours
            assert minikv.ModelConfig.from_dict(again.to_dict()) == config


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_float64_activations_and_logits_agree_to_1e9(family, seed):
    peer = random_peer(family, seed)
    logits, activations = run_with_cache(ours(peer, "float64"), prompt(peer, seed))
    peer_logits, peer_activations = truth(family, seed)
    expected = 2 + 14 * peer.config.num_hidden_layers
    assert len(activations.keys() & peer_activations.keys()) == expected
    assert first_divergence(activations, peer_activations, 1e-9) is None
    assert np.abs(logits - peer_logits).max() < 1e-9


@pytest.mark.parametrize(("family", "seed"), [(f, s) for f in CLASSES for s in range(5)])
def test_exact_is_as_close_as_its_weights_allow_and_decodes_to_the_same_bits(family, seed):
    peer = random_peer(family, seed)
    weights, ids = ours(peer, "exact"), prompt(peer, seed)
    whole = minikv.forward(weights, [ids], logits="all")
    expected = truth(family, seed)[0]
    # Exact rounds a weight by up to 2**-21 of its row's largest, 8 times what float32 does, and an
    # activation once; a product of K terms meets K such roundings. To first order the run is at
    # most 8 K times as far from the float64 run as one whose activations alone are rounded once.
    config = weights.config
    longest = max(config.hidden_size, config.intermediate_size, config.attention_width, len(ids))
    once, _ = rounded_once(ours(peer, "float64"), ids)
    allowed = 8 * longest * rms(once - expected)
    assert rms(whole - expected) <= allowed
    wrong = minikv.forward(ours(peer, "exact", rms_norm_eps=0.5), [ids], logits="all")
    assert rms(wrong - expected) > allowed  # the bound sees a wrong setting
    cache, rows = make_cache("full", weights), []
    for token in ids:
        rows.append(minikv.forward(weights, [[token]], [cache])[0])
    assert_same_bits(np.array(rows), whole)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"sliding_window": 50}),
        ("qwen3", {"sliding_window": 50}),
        ("gemma3_text", {"sliding_window": 50}),
        ("gemma3_text", {"query_pre_attn_scalar": 1}),
        ("gemma3_text", {"rope_local_base_freq": 123.0}),
        ("gemma3_text", {"rms_norm_eps": 0.1}),
    ],
)
def test_the_comparison_sees_a_wrong_setting(family, changes):
    seed = WINDOWED[family]
    assert distance(family, seed) < 1e-9
    assert distance(family, seed, **changes) > 1e-3  # a million times the bound

"""The random models and texts that have golden fingerprints, made with NumPy alone.

``tests/golden/fingerprints.json`` has their 64 digits. What has no more than NumPy, as a browser
or another processor, makes the same models from here.
"""

from __future__ import annotations

import numpy as np

import minikv
from minikv.config import FULL, SLIDING, RopeScaling

CONFIGS = {
    "grouped": minikv.tiny_config(),
    "one K/V head, untied, odd sizes": minikv.tiny_config(
        vocab_size=83,
        hidden_size=29,
        intermediate_size=47,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=10,
        tie_word_embeddings=False,
    ),
    "Llama 3 RoPE": minikv.tiny_config(
        num_attention_heads=3,
        num_key_value_heads=3,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 32),
    ),
    "one wide block, 200 tokens": minikv.tiny_config(
        vocab_size=1009,
        hidden_size=320,
        intermediate_size=640,
        num_hidden_layers=1,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=40,
        max_position_embeddings=4096,
    ),
    "eight blocks": minikv.tiny_config(
        hidden_size=64,
        num_hidden_layers=8,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_position_embeddings=64,
    ),
    "Mistral, windows": minikv.tiny_config(
        model_type="mistral",
        layer_types=(SLIDING, SLIDING),
        sliding_window=37,
    ),
    "Qwen 2.5": minikv.tiny_config(model_type="qwen2", rope_theta=1e6),
    "Qwen 3": minikv.tiny_config(model_type="qwen3", rope_theta=1e6, rms_norm_eps=1e-6),
    "Gemma 3": minikv.tiny_config(
        model_type="gemma3_text",
        num_hidden_layers=3,
        layer_types=(SLIDING, SLIDING, FULL),
        sliding_window=37,
        query_pre_attn_scalar=5.0,
        rope_theta=1e6,
        rope_local_base_freq=1e4,
        rope_scaling=RopeScaling(8.0),
        rms_norm_eps=1e-6,
    ),
}


def random_ids(config: minikv.ModelConfig) -> list[int]:
    """A text that fits the context: 200 tokens at most, more than one block of queries."""
    length = min(200, config.max_position_embeddings)
    return [(i * i * 31 + 7 * i) % config.vocab_size for i in range(length)]


def random_case(which: str) -> tuple[minikv.ModelConfig, dict[str, np.ndarray], list[int]]:
    """Configuration, tensors and text of a random model, by its name in `CONFIGS`."""
    config = CONFIGS[which]
    tensors = minikv.random_tensors(config, seed=list(CONFIGS).index(which), scale=1.5)
    return config, tensors, random_ids(config)

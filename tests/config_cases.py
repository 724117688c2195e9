"""What ``config.json`` may say in two places or two spellings, and what transformers makes of it.

Recorded from transformers 5.2 (and 4.57, where it differs: then minikv refuses by name).
"""

from __future__ import annotations

from typing import Any

from minikv import ModelConfig

FULL = "full_attention"
SLIDING = "sliding_attention"
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

NO_LENGTH = {key: value for key, value in LLAMA3.items() if not key.startswith("original")}


def base(kind: str) -> dict[str, Any]:
    """A small ``config.json`` of a family, without any setting that has two places."""
    return {
        "model_type": kind,
        "vocab_size": 97,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 128,
    }


def meaning(config: ModelConfig) -> dict[str, Any]:
    """A configuration under the names that the recorded cases use."""
    scaling = config.rope_scaling
    return {
        "rope_theta": config.rope_theta,
        "rope_local_base_freq": config.rope_local_base_freq,
        "factor": scaling and scaling.factor,
        "original": scaling and scaling.original_max_position_embeddings,
        "windows": [config.window(layer) for layer in range(config.num_hidden_layers)],
        "ends": config.eos_token_id,
        "query_pre_attn_scalar": config.query_pre_attn_scalar,
        "family": config.model_type,
    }


# Family, what is added, and what it means: of the fields of ModelConfig
TAKEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # RoPE's base
    ("llama", {}, {"rope_theta": 10000.0}),
    ("llama", {"rope_theta": 5e5}, {"rope_theta": 5e5}),
    ("llama", {"rope_parameters": {"rope_theta": 5e5}}, {"rope_theta": 5e5}),
    ("llama", {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 5e5}}, {"rope_theta": 5e5}),
    ("llama", {"rope_scaling": {"rope_theta": 5e5, **LINEAR}}, {"rope_theta": 5e5}),
    ("gemma3_text", {}, {"rope_theta": 1e6, "rope_local_base_freq": 1e4}),
    ("gemma3_text", {"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_local_base_freq": 1e4}),
    ("gemma3_text", {"rope_local_base_freq": 7.0}, {"rope_local_base_freq": 7.0}),
    (
        "gemma3_text",
        {"rope_parameters": {FULL: {"rope_theta": 5e5}, SLIDING: {"rope_theta": 7.0}}},
        {"rope_theta": 5e5, "rope_local_base_freq": 7.0},
    ),
    (
        "gemma3_text",
        {"rope_parameters": {FULL: {"rope_theta": 5e5}}, "rope_local_base_freq": 7.0},
        {"rope_theta": 5e5, "rope_local_base_freq": 7.0},
    ),
    # Its scaling
    ("llama", {"rope_scaling": LINEAR}, {"factor": 4.0}),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, {"factor": 4.0}),
    ("llama", {"rope_parameters": {**LINEAR, "rope_theta": 1e4}}, {"factor": 4.0}),
    ("llama", {"rope_scaling": LINEAR, "rope_parameters": LINEAR}, {"factor": 4.0}),
    ("llama", {"rope_scaling": {}, "rope_parameters": LINEAR}, {"factor": 4.0}),
    ("llama", {"rope_scaling": None, "rope_parameters": LINEAR}, {"factor": 4.0}),
    (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rope_scaling": LINEAR},
        {"factor": 4.0, "rope_theta": 1e4},
    ),
    ("llama", {"rope_scaling": {"rope_type": "default", "factor": 4.0}}, {"factor": None}),
    ("llama", {"rope_scaling": {"factor": 4.0}}, {"factor": None}),
    ("llama", {"rope_scaling": LLAMA3}, {"factor": 32.0, "original": 64}),
    (
        "llama",
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 64},
        {"factor": 32.0, "original": 64},
    ),
    ("qwen3", {"rope_scaling": LINEAR}, {"factor": 4.0}),
    (
        "gemma3_text",
        {"rope_parameters": {FULL: {**LINEAR, "rope_theta": 5e5}, SLIDING: {"rope_theta": 7.0}}},
        {"factor": 4.0, "rope_theta": 5e5},
    ),
    ("gemma3_text", {"rope_scaling": LINEAR}, {"factor": 4.0, "rope_theta": 1e6}),
    (
        "gemma3_text",
        {"rope_scaling": LINEAR, "rope_parameters": {FULL: LINEAR}},
        {"factor": 4.0},
    ),
    # Which layers slide
    ("llama", {"sliding_window": 8}, {"windows": [None] * 3}),
    ("llama", {"sliding_window": 8, "layer_types": [SLIDING] * 3}, {"windows": [None] * 3}),
    ("mistral", {"sliding_window": 8}, {"windows": [8] * 3}),
    ("mistral", {"sliding_window": None}, {"windows": [None] * 3}),
    ("mistral", {}, {"windows": [4096] * 3}),
    ("mistral", {"sliding_window": 8, "layer_types": [SLIDING] * 3}, {"windows": [8] * 3}),
    ("qwen2", {"sliding_window": 8, "max_window_layers": 1}, {"windows": [None] * 3}),
    (
        "qwen2",
        {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
        {"windows": [None, 8, 8]},
    ),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": True}, {"windows": [None] * 3}),
    (
        "qwen3",
        {
            "sliding_window": 8,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "layer_types": [SLIDING, FULL, FULL],
        },
        {"windows": [8, None, None]},
    ),
    ("gemma3_text", {"sliding_window": 8}, {"windows": [8] * 3}),
    (
        "gemma3_text",
        {"sliding_window": 8, "sliding_window_pattern": 2},
        {"windows": [8, None, 8]},
    ),
    (
        "gemma3_text",
        {"sliding_window": 8, "sliding_window_pattern": 2, "layer_types": [FULL, FULL, SLIDING]},
        {"windows": [None, None, 8]},
    ),
    (
        "gemma3_text",
        {"sliding_window": 8, "_sliding_window_pattern": 2, "layer_types": [FULL, FULL, SLIDING]},
        {"windows": [None, None, 8]},
    ),
    # End tokens, heads, and keys that a family does not read
    ("llama", {}, {"ends": (2,)}),
    ("llama", {"eos_token_id": None}, {"ends": ()}),
    ("llama", {"eos_token_id": [5, 7]}, {"ends": (5, 7)}),
    ("qwen3", {}, {"ends": ()}),
    ("gemma3_text", {}, {"ends": (1,)}),
    ("llama", {"pretraining_tp": 2}, {}),
    ("llama", {"rope_interleaved": True}, {}),
    ("llama", {"final_logit_softcapping": 30.0}, {}),
    ("llama", {"query_pre_attn_scalar": 9}, {"query_pre_attn_scalar": None}),
    ("llama", {"hidden_activation": "gelu"}, {}),
    ("llama", {"use_bidirectional_attention": True}, {}),
    ("llama", {"num_local_experts": 8}, {}),
    ("mistral", {"attention_bias": True}, {"family": "mistral"}),
    ("qwen2", {"attention_bias": False, "mlp_bias": True}, {}),
    ("qwen3", {"mlp_bias": True}, {}),
    ("gemma3_text", {"hidden_act": "gelu"}, {}),
    ("gemma3_text", {"use_cache": False, "cache_implementation": "hybrid"}, {}),
]

# Family, what is added, and the keys that the refusal names
REFUSED: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    # Two places that say two things
    (
        "llama",
        {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}},
        ("rope_theta", "rope_parameters"),
    ),
    (
        "llama",
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": LINEAR},
        ("rope_theta", "rope_parameters"),
    ),
    (
        "llama",
        {"rope_scaling": LINEAR, "rope_parameters": {**LINEAR, "factor": 2.0}},
        ("rope_scaling", "rope_parameters"),
    ),
    (
        "llama",
        {"rope_scaling": {"rope_type": "default"}, "rope_parameters": LINEAR},
        ("rope_scaling", "rope_parameters"),
    ),
    (
        "llama",
        {"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 4.0}},
        ("rope_scaling.rope_type", "rope_scaling.type"),
    ),
    (
        "llama",
        {"rope_scaling": LLAMA3, "original_max_position_embeddings": 32},
        ("original_max_position_embeddings", "rope_scaling"),
    ),
    (
        "llama",
        {"rope_scaling": NO_LENGTH, "original_max_position_embeddings": 64},
        ("original_max_position_embeddings",),
    ),
    (
        "gemma3_text",
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        ("rope_scaling", "rope_type"),
    ),
    (
        "gemma3_text",
        {"rope_parameters": {FULL: {"type": "linear", "factor": 4.0}}},
        ("rope_parameters", "rope_type"),
    ),
    (
        "gemma3_text",
        {"rope_theta": 5e5, "rope_parameters": {FULL: {"rope_theta": 1e6}}},
        ("rope_theta", f"rope_parameters.{FULL}"),
    ),
    (
        "gemma3_text",
        {"rope_local_base_freq": 7.0, "rope_parameters": {SLIDING: {"rope_theta": 8.0}}},
        ("rope_local_base_freq", f"rope_parameters.{SLIDING}"),
    ),
    (
        "gemma3_text",
        {"rope_scaling": LINEAR, "rope_parameters": {FULL: {"rope_type": "default"}}},
        ("rope_scaling", "rope_parameters"),
    ),
    (
        "gemma3_text",
        {"sliding_window": 8, "_sliding_window_pattern": 2},
        ("sliding_window_pattern", "_sliding_window_pattern"),
    ),
    ("mistral", {"sliding_window": 8, "layer_types": [FULL] * 3}, ("layer_types",)),
    ("mistral", {"sliding_window": None, "layer_types": [SLIDING] * 3}, ("layer_types",)),
    # A place that the family has not
    ("llama", {"rope_parameters": {FULL: LINEAR}}, ("rope_parameters", FULL)),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 5e5}}, ("rope_parameters", FULL)),
    # What is not built, wherever it stands
    ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ("rope_type", "yarn")),
    ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, ("yarn", "rope_scaling")),
    (
        "qwen3",
        {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "yarn"}},
        ("yarn", "rope_scaling"),
    ),
    (
        "qwen3",
        {"rope_parameters": {"rope_type": "yarn"}, "rope_scaling": LINEAR},
        ("yarn", "rope_parameters"),
    ),
    (
        "gemma3_text",
        {"rope_parameters": {FULL: {"rope_type": "yarn"}}},
        ("yarn", f"rope_parameters.{FULL}"),
    ),
    ("llama", {"partial_rotary_factor": 0.5}, ("partial_rotary_factor",)),
    ("llama", {"rope_scaling": {"partial_rotary_factor": 0.5}}, ("partial_rotary_factor",)),
    ("llama", {"quantization_config": {"bits": 4}}, ("quantization_config",)),
    ("llama", {"attention_bias": True}, ("attention_bias",)),
    ("llama", {"mlp_bias": True}, ("mlp_bias",)),
    ("qwen3", {"attention_bias": True}, ("attention_bias",)),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, ("final_logit_softcapping",)),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, ("attn_logit_softcapping",)),
    ("gemma3_text", {"use_bidirectional_attention": True}, ("use_bidirectional_attention",)),
    ("gemma3_text", {"hidden_activation": "gelu"}, ("hidden_activation",)),
]

"""Hugging Face's ``config.json``, in the spellings of transformers 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..config import LIMIT, RopeScaling, is_positive, is_whole
from ..errors import ConfigError

# Keys of config.json that would change the forward pass, with the values that mean "not used".
_NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", "swish", None),
    "hidden_activation": ("silu", "swish", None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "pretraining_tp": (0, 1, None),
    "quantization_config": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "num_local_experts": (0, None),
}


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ModelConfig` from the contents of a ``config.json``.

    Raises
    ------
    ConfigError
        If a key is missing or mistyped, or asks for a feature that is not built.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"config.json holds a {type(given).__name__}, expected an object")
    if (kind := given.get("model_type", "llama")) != "llama":
        raise ConfigError(f"model_type is {kind!r:.80}, which is not built: only 'llama'")
    for key, unused in _NOT_BUILT.items():
        if given.get(key) not in unused:
            raise ConfigError(f"{key} is {given[key]!r:.80}, a feature that is not built")
    required = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                "num_attention_heads")  # fmt: skip
    for key in required:
        if key not in given:
            raise ConfigError(f"config.json has no {key!r}, which every model needs")
    rope = _rope_settings(given)
    heads, width = given["num_attention_heads"], given["hidden_size"]
    head_dim = given.get("head_dim")
    if head_dim is None:
        if not (is_whole(heads, 1, LIMIT) and is_whole(width, 1, LIMIT)) or width % heads:
            raise ConfigError(f"hidden_size is {width!r:.80}, expected a multiple of num_"
                              f"attention_heads ({heads!r:.80}) without head_dim")  # fmt: skip
        head_dim = width // heads
    eos = given.get("eos_token_id")
    if eos is None or isinstance(eos, int):
        eos = () if eos is None else (eos,)
    if not isinstance(eos, (list, tuple)):
        raise ConfigError(f"eos_token_id is {eos!r:.80}, expected a token id or a list of them")
    kv_heads = given.get("num_key_value_heads")
    tied = given.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ConfigError(f"tie_word_embeddings is {tied!r:.80}, expected true or false")
    return {
        **{key: given[key] for key in required},
        "num_key_value_heads": heads if kv_heads is None else kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": given.get("max_position_embeddings", 2048),
        "rms_norm_eps": given.get("rms_norm_eps", 1e-6),
        "tie_word_embeddings": tied,
        "bos_token_id": given.get("bos_token_id"),
        "eos_token_id": tuple(eos),
        **rope,
    }


def _rope_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling`` from either spelling."""
    merged: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        part = given.get(key) or {}
        if not isinstance(part, Mapping):
            raise ConfigError(f"{key} is {part!r:.80}, expected an object or null")
        merged = {**part, **merged}
    theta = given.get("rope_theta", merged.get("rope_theta", 10000.0))
    kind = merged.get("rope_type", merged.get("type", "default"))
    if merged.get("partial_rotary_factor", 1) != 1:
        raise ConfigError("partial_rotary_factor other than 1 is a feature that is not built")
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind != "llama3":
        raise ConfigError(f"rope_type is {kind!r:.80}, which is not built: 'default', 'llama3' are")
    numbers: dict[str, Any] = {field.name: merged.get(field.name) for field in fields(RopeScaling)}
    for name, value in numbers.items():
        if not is_positive(value):
            raise ConfigError(f"{name} is {value!r:.80}, RoPE 'llama3' takes a positive number")
    if not numbers["low_freq_factor"] < numbers["high_freq_factor"]:
        raise ConfigError("RoPE scaling 'llama3': low_freq_factor must be below high_freq_factor")
    numbers["original_max_position_embeddings"] = int(numbers["original_max_position_embeddings"])
    return {"rope_theta": theta, "rope_scaling": RopeScaling(**numbers)}

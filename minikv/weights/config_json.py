"""Hugging Face's ``config.json``, in the spellings of transformers 4 and 5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from ..checks import is_positive, is_whole
from ..config import FAMILIES, FULL, LIMIT, SLIDING, ModelConfig, RopeScaling
from ..errors import ConfigError

# Keys of config.json that would change the forward pass, with the values that mean "not used".
_NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_bidirectional_attention": (False, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "pretraining_tp": (0, 1, None),
    "quantization_config": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "num_local_experts": (0, None),
}
_ACTIVATIONS = {"silu": ("silu", "swish"), "gelu_pytorch_tanh": ("gelu_pytorch_tanh",)}
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# What transformers takes a missing key to mean, where that is not the same for all families.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "sliding_window_pattern": 6,
    },
}


def read(path: Path) -> ModelConfig:
    """The configuration in a file; errors name it."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")  # a pipe would be waited for
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; a model folder in Hugging Face layout has a config.json"
        ) from None
    except (ValueError, RecursionError) as error:  # ConfigError, JSON and UTF-8 errors
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ModelConfig` from the contents of a ``config.json``.

    Raises
    ------
    ConfigError
        If a key is missing or mistyped, or asks for a feature that is not built.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"config.json holds a {type(given).__name__}, expected an object")
    if isinstance(text := given.get("text_config"), Mapping):  # the language half of Gemma 3 4B
        given = {"tie_word_embeddings": True, "eos_token_id": given.get("eos_token_id"), **text}
    kind = given.get("model_type", "llama")
    if not isinstance(kind, str) or kind not in FAMILIES:
        built = ", ".join(map(repr, FAMILIES))
        raise ConfigError(f"model_type is {kind!r:.80}, which is not built; built: {built}")
    for key, unused in _NOT_BUILT.items():
        if given.get(key) not in unused:
            raise ConfigError(f"{key} is {given[key]!r:.80}, a feature that is not built")
    family = FAMILIES[kind]
    for key in ("hidden_act", "hidden_activation"):
        if given.get(key) not in (None, *_ACTIVATIONS[family.hidden_act]):
            raise ConfigError(
                f"{key} is {given[key]!r:.80}, which is not built for {kind}: only "
                f"{family.hidden_act!r}"
            )
    given = _DEFAULTS[kind] | dict(given)
    for key in _REQUIRED:
        if key not in given:
            raise ConfigError(f"config.json has no {key!r}, which every model needs")
    heads, width = given["num_attention_heads"], given["hidden_size"]
    head_dim = given.get("head_dim")
    if head_dim is None:
        if not (is_whole(heads, 1, LIMIT) and is_whole(width, 1, LIMIT)) or width % heads:
            raise ConfigError(
                f"hidden_size is {width!r:.80}, expected a multiple of num_"
                f"attention_heads ({heads!r:.80}) without head_dim"
            )
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
    types = _layer_types(given, kind)
    return {
        **{key: given[key] for key in _REQUIRED},
        "num_key_value_heads": heads if kv_heads is None else kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": given["max_position_embeddings"],
        "rms_norm_eps": given.get("rms_norm_eps", 1e-6),
        "tie_word_embeddings": tied,
        "bos_token_id": given.get("bos_token_id"),
        "eos_token_id": tuple(eos),
        "model_type": kind,
        "query_pre_attn_scalar": given.get("query_pre_attn_scalar"),
        "layer_types": types,
        "sliding_window": given["sliding_window"] if types else None,
        "rope_local_base_freq": _local_base(given) if kind == "gemma3_text" else None,
        **_rope_settings(given),
    }


def _layer_types(given: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """The kind of attention of each layer; empty where all layers see everything."""
    window, types = given.get("sliding_window"), given.get("layer_types")
    if kind == "llama" and window is not None:
        raise ConfigError(f"sliding_window is {window!r:.80}, which llama does not have")
    layers = given["num_hidden_layers"]
    if not is_whole(layers, 1, 10**6):  # far more than there are; a list is made of it
        raise ConfigError(f"num_hidden_layers is {layers!r:.80}, expected a whole number >= 1")
    if types is not None and not isinstance(types, (list, tuple)):
        raise ConfigError(f"layer_types is {types!r:.80}, expected a list")
    if types is not None and len(types) != layers:
        raise ConfigError(f"layer_types names {len(types)} layers, num_hidden_layers is {layers}")
    for given_type in types or ():
        if given_type not in (SLIDING, FULL):
            raise ConfigError(f"layer_types holds {given_type!r:.80}, which is not built")
    if window is None or (kind.startswith("qwen") and not given.get("use_sliding_window")):
        return ()
    if types is None:
        every = given.get("sliding_window_pattern", given.get("_sliding_window_pattern"))
        full_below = given.get("max_window_layers", 28) if kind.startswith("qwen") else 0
        for name, number in (("sliding_window_pattern", every), ("max_window_layers", full_below)):
            if number is not None and not is_whole(number, 0, LIMIT):
                raise ConfigError(f"{name} is {number!r:.80}, expected a whole number")
        types = [
            FULL if i < full_below or (every and (i + 1) % every == 0) else SLIDING
            for i in range(layers)
        ]
    return tuple(types) if SLIDING in types else ()


def _local_base(given: Mapping[str, Any]) -> Any:
    """Gemma 3's base for sliding layers, from either spelling."""
    parts = given.get("rope_parameters")
    local = parts.get(SLIDING) if isinstance(parts, Mapping) else None
    local = local if isinstance(local, Mapping) else {}
    if (scaling := local.get("rope_type", "default")) != "default":
        raise ConfigError(
            f"rope_parameters scales sliding layers by {scaling!r:.80}, which is not built"
        )
    found = local.get("rope_theta")
    return given.get("rope_local_base_freq", 10000.0 if found is None else found)


def _rope_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling``, from either spelling; of the full layers, if told."""
    merged: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        part = given.get(key) or {}
        if isinstance(part, Mapping):
            part = part.get(FULL, part)
        if not isinstance(part, Mapping):
            raise ConfigError(f"{key} is {part!r:.80}, expected an object or null")
        merged = {**part, **merged}
    theta = merged.get("rope_theta", given.get("rope_theta", 10000.0))
    kind = merged.get("rope_type", merged.get("type", "default"))
    if merged.get("partial_rotary_factor", 1) != 1:
        raise ConfigError("partial_rotary_factor other than 1 is a feature that is not built")
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind not in ("llama3", "linear"):
        raise ConfigError(
            f"rope_type is {kind!r:.80}, which is not built: 'default', 'linear' and 'llama3' are"
        )
    names = [field.name for field in fields(RopeScaling)][: 1 if kind == "linear" else None]
    numbers: dict[str, Any] = {name: merged.get(name) for name in names}
    for name, value in numbers.items():
        if not is_positive(value):
            raise ConfigError(f"{name} is {value!r:.80}, RoPE {kind!r} takes a positive number")
    if kind == "llama3":
        whole = int(numbers["original_max_position_embeddings"])
        numbers["original_max_position_embeddings"] = whole
    return {"rope_theta": theta, "rope_scaling": RopeScaling(**numbers)}


def as_json(config: ModelConfig) -> dict[str, Any]:
    """The contents of a ``config.json``; `check_reads_back` says whether it loses anything."""
    out = {k: v for k, v in asdict(config).items() if v is not None or k == "bos_token_id"}
    activation = "hidden_activation" if config.model_type == "gemma3_text" else "hidden_act"
    slides = SLIDING in config.layer_types
    out |= {
        activation: config.family.hidden_act,
        "architectures": [_CLASSES[config.model_type]],
        "eos_token_id": list(config.eos_token_id),
        "layer_types": list(config.layer_types),
        "sliding_window": config.sliding_window if slides else None,
    }
    if config.model_type == "gemma3_text":  # which has its own idea of what a missing key means
        if config.rope_scaling is None:  # else sliding layers are scaled as the others are
            out.setdefault("rope_local_base_freq", config.rope_theta)
        out.setdefault("query_pre_attn_scalar", float(config.head_dim))
    if (scalar := out.get("query_pre_attn_scalar")) and scalar.is_integer():
        out["query_pre_attn_scalar"] = int(scalar)  # as transformers insists
    if config.model_type.startswith("qwen"):
        out["use_sliding_window"] = slides
    if not slides or (config.model_type == "mistral" and FULL not in config.layer_types):
        del out["layer_types"]  # a mistral's slide wherever there is a sliding_window
    if config.rope_scaling is not None:
        linear = config.rope_scaling.low_freq_factor is None
        given = {k: v for k, v in out["rope_scaling"].items() if v is not None}
        out["rope_scaling"] = {"rope_type": "linear" if linear else "llama3"} | given
    return out


def check_reads_back(config: ModelConfig) -> None:
    """Raise `ConfigError` if what `as_json` writes is read as another model, or not at all."""
    try:
        again = _written_out(ModelConfig.from_dict(as_json(config)))
    except ConfigError as error:
        raise ConfigError(f"no config.json can hold this configuration: {error}") from None
    ours = _written_out(config)
    for name in (field.name for field in fields(ModelConfig)):
        here, there = getattr(ours, name), getattr(again, name)
        if here != there:
            raise ConfigError(
                f"no config.json of a {config.model_type} can hold {name} "
                f"{here!r:.80}: it would be read as {there!r:.80}"
            )


def _written_out(config: ModelConfig) -> ModelConfig:
    """The same model, its defaults filled in and what nothing reads left out."""
    slides, local = SLIDING in config.layer_types, config.rope_local_base_freq
    if local is None and config.rope_scaling is None:
        local = config.rope_theta
    return replace(
        config,
        query_pre_attn_scalar=config.query_pre_attn_scalar or config.head_dim,
        layer_types=config.layer_types if slides else (),
        sliding_window=config.sliding_window if slides else None,
        rope_local_base_freq=local if slides else None,
    )


_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}

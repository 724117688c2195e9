"""GGUF files as llama.cpp stores models: for tests, and for llama.cpp itself in the benchmarks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minikv.config import ModelConfig
from minikv.extras import require_extra

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
}


def metadata(config: ModelConfig) -> dict[str, Any]:
    """The keys that llama.cpp's converter writes for a configuration, without a tokenizer."""
    numbers: dict[str, Any] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
        "vocab_size": config.vocab_size,
    }
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        numbers["rope.scaling.type"] = "linear"
        numbers["rope.scaling.factor"] = config.rope_scaling.factor
    if config.sliding_window:
        numbers["attention.sliding_window"] = config.sliding_window
    architecture = ARCHITECTURES[config.model_type]
    return {f"{architecture}.{key}": value for key, value in numbers.items()}


def write_gguf(
    path: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    conventional: bool = True,
    kind: str = "F32",
) -> Path:
    """Write tensors, under Hugging Face's names, as llama.cpp stores them.

    Parameters
    ----------
    path : str or Path
    config : ModelConfig
    tensors : mapping of str to ndarray
        Those of a model, or fewer.
    fields : mapping of str to any
        More metadata, such as a tokenizer; they replace those of the configuration, and None
        leaves one out. A key that starts with a tensor's name, such as ``"rope_freqs.weight"``,
        is written as that tensor.
    conventional : bool
        Permute rows and shift norms as llama.cpp does. Without it, exactly what should be
        changed is not, and the other way round.
    kind : str
        Of matrices: ``"F32"``, or a quantisation of the package `gguf`, such as ``"Q4_0"``.
    """
    gguf = require_extra("gguf", "fetch", "writing a GGUF file")
    family = ARCHITECTURES[config.model_type]
    told = {"general.architecture": family, **metadata(config), **fields}
    architecture = told.pop("general.architecture")
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in told.items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(key, value)
        elif value is not None:
            _add(writer, key, value)
    names = gguf.get_tensor_name_map(
        getattr(gguf.MODEL_ARCH, family.upper()), config.num_hidden_layers
    )
    for name, tensor in tensors.items():
        stored = _stored(name, tensor, config, conventional)
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        values = np.ascontiguousarray(stored, np.float32)
        if kind == "F32" or values.ndim < 2:
            writer.add_tensor(theirs, values)
        else:
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(theirs, gguf.quants.quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a q or k matrix in llama.cpp's order; `minikv.weights.gguf.undo_permutation` undoes.

    Examples
    --------
    >>> permuted(np.array([[0], [1], [2], [3]]), heads=1).ravel()
    array([0, 2, 1, 3])
    """
    out, width = rows.shape
    halves = rows.reshape(heads, 2, out // heads // 2, width)
    return halves.swapaxes(1, 2).reshape(out, width)


def _stored(name: str, tensor: np.ndarray, config: ModelConfig, conventional: bool) -> np.ndarray:
    family = ARCHITECTURES[config.model_type]
    is_rotated = re.search(r"[qk]_proj\.weight$", name) is not None
    if is_rotated and (family == "llama") == conventional:
        return permuted(tensor, tensor.shape[0] // config.head_dim)
    if family == "gemma3" and "norm" in name and conventional:
        return tensor + np.float32(1)
    return tensor


def _add(writer: Any, key: str, value: Any) -> None:
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string"}
    method = "array" if isinstance(value, (list, tuple)) else kinds[type(value)]
    getattr(writer, f"add_{method}")(key, value)

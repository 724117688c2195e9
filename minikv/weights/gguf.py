"""GGUF files to model folders, through the ``gguf`` package (extra ``fetch``)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..errors import MinikvError, WeightsError, require_extra
from .folder import save_folder
from .progress import Progress, silent

# llama.cpp's names and Hugging Face's
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_CONTROL, _USER_DEFINED = 3, 4  # token types


def convert(path: str | Path, folder: str | Path, progress: Progress = silent) -> Path:
    """Write a Llama GGUF file as a folder in Hugging Face layout, float32.

    Parameters
    ----------
    path : str or Path
        The GGUF file, of any quantisation that the ``gguf`` package dequantises.
    folder : str or Path
        Made here; must not exist. Gets ``config.json``, ``model.safetensors``,
        ``tokenizer.json`` and ``tokenizer_config.json`` (special tokens, chat template).
    progress : callable
        Called with a label, the bytes done and the bytes in all.

    Raises
    ------
    WeightsError
        If the file is damaged, or uses an architecture, a tensor or a tokenizer that is not built.
    MissingExtraError
        If the ``gguf`` package is not installed.
    """
    gguf = require_extra("gguf", "fetch", "converting a GGUF file")
    path = Path(path)
    progress(f"reading {path.name}", 0, 1)
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        progress(f"reading {path.name}", 1, 1)
        stored = {_hf_name(tensor.name): tensor for tensor in reader.tensors}
        config = _config(fields, tied="lm_head.weight" not in stored)
        files = _tokenizer_files(fields)
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        total, done, tensors = 4 * sum(int(t.n_elements) for t in reader.tensors), 0, {}
        for name, tensor in stored.items():
            values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            if match := re.search(r"self_attn\.([qk])_proj\.weight$", name):
                values = undo_permutation(values, heads[match[1]])
            tensors[name] = values
            done += values.nbytes
            progress("dequantising", done, total)
    except MinikvError:
        raise
    except Exception as error:  # the reader trusts its input, so damage shows in any way
        raise WeightsError(f"{path} is no usable GGUF file: {error!r:.200}") from error
    return save_folder(folder, config, tensors, files)


def undo_permutation(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a q or k matrix from llama.cpp's order to Hugging Face's.

    RoPE turns pairs of rows. llama.cpp keeps a pair side by side, Hugging Face keeps one half of
    every head's pairs before the other: ``(heads, d/2, 2, D) -> (heads, 2, d/2, D)``.

    Examples
    --------
    >>> undo_permutation(np.array([[0], [2], [1], [3]]), heads=1).ravel()
    array([0, 1, 2, 3])
    """
    out, width = rows.shape
    pairs = rows.reshape(heads, out // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(out, width)


def _hf_name(name: str) -> str:
    match = re.fullmatch(r"(blk\.(\d+)\.)?(\w+)\.weight", name)
    known = _LAYER_NAMES if match and match[1] else _NAMES
    if not match or match[3] not in known:
        raise WeightsError(f"the GGUF file holds the tensor {name!r:.80}, which is not built")
    return (f"model.layers.{match[2]}." if match[1] else "") + f"{known[match[3]]}.weight"


def _config(fields: dict[str, Any], tied: bool) -> ModelConfig:
    """The configuration in the metadata."""
    if (kind := fields.get("general.architecture")) != "llama":
        raise WeightsError(f"the GGUF file holds a {kind!r:.40} model; built: 'llama'")

    def number(key: str, default: float) -> float:
        # Stored as float32; the shortest decimal that rounds to it is what was meant.
        return float(str(np.float32(fields.get(f"llama.{key}", default))))

    heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    eos = fields.get("tokenizer.ggml.eos_token_id")
    return ModelConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=width,
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=fields.get("llama.attention.key_length", width // heads),
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=number("attention.layer_norm_rms_epsilon", 1e-5),
        rope_theta=number("rope.freq_base", 10000.0),
        tie_word_embeddings=tied,
        bos_token_id=fields.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=() if eos is None else (eos,),
    )


def _tokenizer_files(fields: dict[str, Any]) -> dict[str, str]:
    """``tokenizer.json`` and ``tokenizer_config.json`` from the metadata."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    family = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if family != ("gpt2", "smollm"):
        raise WeightsError(f"the GGUF file's tokenizer is {family!s:.80}, which is not built; "
                           "built: ('gpt2', 'smollm')")  # fmt: skip
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            added = AddedToken(token, normalized=False, special=kind == _CONTROL)
            tokenizer.add_tokens([added])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                "model_max_length": fields["llama.context_length"]}  # fmt: skip
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (index := fields.get(f"tokenizer.ggml.{theirs}_token_id")) is not None:
            settings[f"{ours}_token"] = tokens[index]
    if template := fields.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
    }

"""GGUF files to model folders, through the ``gguf`` package (extra ``fetch``)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..errors import MinikvError, WeightsError
from ..extras import require_extra
from ..progress import Progress, silent
from .folder import save_folder

# llama.cpp's names and Hugging Face's
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_NAMES = {  # its two more norms move the meaning of one name
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # token types
# The words that Qwen's byte-level BPE merges within, as its tokenizer.json gives them
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def convert(path: str | Path, folder: str | Path, progress: Progress = silent) -> Path:
    """Write a GGUF file as a folder in Hugging Face layout, float32.

    Architectures ``llama``, ``qwen2``, ``qwen3`` and ``gemma3`` (text alone).

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
        architecture = fields.get("general.architecture")
        if architecture not in _MODEL_TYPES:
            raise WeightsError(
                f"the GGUF file holds a {architecture!r:.40} model; built: "
                f"{', '.join(_MODEL_TYPES)}"
            )
        stored = {_hf_name(tensor.name, architecture): tensor for tensor in reader.tensors}
        config = ModelConfig.from_dict(_config_json(fields, "lm_head.weight" not in stored))
        files = _tokenizer_files(fields)
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        total, done, tensors = 4 * sum(int(t.n_elements) for t in reader.tensors), 0, {}
        for name, tensor in stored.items():
            values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            match = re.search(r"self_attn\.([qk])_proj\.weight$", name)
            if match and architecture == "llama":
                values = undo_permutation(values, heads[match[1]])
            if architecture == "gemma3" and name.endswith("norm.weight"):
                values = values - np.float32(1)  # Gemma's norms scale by 1 + weight
            tensors[name] = values
            done += values.nbytes
            progress("dequantising", done, total)
    except MinikvError:
        raise
    except KeyError as error:
        raise WeightsError(f"{path} is no usable GGUF file: it lacks {error.args[0]!r}") from error
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


def _hf_name(name: str, architecture: str) -> str:
    match = re.fullmatch(r"(blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    layer = _LAYER_NAMES | _GEMMA_NAMES if architecture == "gemma3" else _LAYER_NAMES
    known = layer if match and match[1] else _NAMES
    if not match or match[3] not in known:
        raise WeightsError(f"the GGUF file holds the tensor {name!r:.80}, which is not built")
    return (f"model.layers.{match[2]}." if match[1] else "") + f"{known[match[3]]}.{match[4]}"


def _config_json(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    """The metadata as the contents of a ``config.json``."""
    architecture = fields["general.architecture"]

    def given(key: str, default: Any = None) -> Any:
        return fields.get(f"{architecture}.{key}", default)

    def number(key: str, default: float) -> float:
        # Stored as float32; the shortest decimal that rounds to it is what was meant.
        return float(str(np.float32(given(key, default))))

    heads, width = given("attention.head_count"), given("embedding_length")
    layers, head_dim = given("block_count"), given("attention.key_length", width // heads)
    config = {
        "model_type": _MODEL_TYPES[architecture],
        "tie_word_embeddings": tied,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": given("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": head_dim,
        "num_key_value_heads": given("attention.head_count_kv", heads),
        "max_position_embeddings": given("context_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": number("rope.freq_base", 10000.0),
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
    }
    if (kind := given("rope.scaling.type", "none")) != "none":
        config["rope_scaling"] = {"rope_type": kind, "factor": number("rope.scaling.factor", 1.0)}
    if architecture == "gemma3":
        period = given("attention.sliding_window_pattern", 6)  # llama.cpp's constant
        config |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": width // heads if layers == 62 else head_dim,  # 62: the 27B
            "sliding_window": given("attention.sliding_window"),
            "layer_types": [
                "sliding_attention" if layer % period else "full_attention"
                for layer in range(1, layers + 1)
            ],
            "rope_local_base_freq": number("rope.freq_base_swa", 10000.0),
        }
    return config


def _merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE vocabulary, best first.

    SentencePiece joins the two neighbours whose whole has the highest score. So each way to cut a
    token into two others is a merge, and it ranks by the token's score.
    """
    score = {
        token: s for token, s, kind in zip(tokens, scores, kinds, strict=True) if kind == _NORMAL
    }
    best = sorted((token for token in score if len(token) > 1), key=lambda t: -score[t])
    cuts = ((token[:at], token[at:]) for token in best for at in range(len(token) - 1, 0, -1))
    return [cut for cut in cuts if cut[0] in score and cut[1] in score]


def _tokenizer_files(fields: dict[str, Any]) -> dict[str, str]:
    """``tokenizer.json`` and ``tokenizer_config.json`` from the metadata."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as words
    from tokenizers.processors import TemplateProcessing

    def given(key: str, default: Any = None) -> Any:
        return fields.get(f"tokenizer.ggml.{key}", default)

    architecture, family = fields["general.architecture"], (given("model"), given("pre"))
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if family[0] == "llama" and given("add_space_prefix") is False:
        merges = _merges(tokens, fields["tokenizer.ggml.scores"], kinds)
        unknown = tokens[given("unknown_token_id", 0)]
        model = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        spaces = decoders.Replace("▁", " ")
        tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()])
    elif family in (("gpt2", "smollm"), ("gpt2", "qwen2")):
        merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        in_bytes = words.ByteLevel(add_prefix_space=False, use_regex=family[1] == "smollm")
        split: Any = words.Digits(individual_digits=True)
        if family[1] == "qwen2":
            split = words.Split(Regex(_QWEN_WORDS), "isolated")
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = words.Sequence([split, in_bytes])
        tokenizer.decoder = decoders.ByteLevel()
    else:
        raise WeightsError(
            f"the GGUF file's tokenizer is {family!s:.80}, which is not built; "
            "built: ('gpt2', 'smollm' or 'qwen2'), and 'llama' without "
            "add_space_prefix"
        )
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == _CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    if given("add_bos_token", family[0] == "llama"):
        first = tokens[given("bos_token_id")]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, given("bos_token_id"))]
        )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields[f"{architecture}.context_length"],
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (index := given(f"{theirs}_token_id")) is not None:
            settings[f"{ours}_token"] = tokens[index]
    if template := fields.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
    }

"""GGUF files to model folders, through the ``gguf`` package (extra ``fetch``)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..errors import MinikvError, WeightsError
from ..extras import require, require_extra
from ..families import RopeScaling
from ..progress import Progress, silent
from ..rotary import rope_frequencies
from .folder import save_folder
from .gguf_header import check_header

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
_ROPE_FACTORS = "rope_freqs.weight"
_NORMAL = 1  # token types
_CONTROL = 3
_USER_DEFINED = 4

# Keys of an architecture that are read here, or that change neither model nor tokens
_READ = {
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scale_linear",
    "attention.causal",
    "tensor_data_layout",
    "pooling_type",
}
_READ_OF_GEMMA = {
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.freq_base_swa",
    "rope.dimension_count_swa",
    "attention.key_length_swa",
    "attention.value_length_swa",
}
_UNUSED = (None, False, 0, "")  # what turns any other key off ...
_UNUSED_FACTORS = (  # ... or 1, for what multiplies
    "rope.scaling.attn_factor",
    "attention.scale",
    "attention.output_scale",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
)
# Keys of the tokenizer that are read here, or that change no tokens
_READ_OF_TOKENIZER = {
    "model",
    "pre",
    "tokens",
    "token_type",
    "token_type_count",
    "scores",
    "merges",
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "unknown_token_id",
    "seperator_token_id",
    "padding_token_id",
    "mask_token_id",
    "cls_token_id",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "prefix_token_id",
    "suffix_token_id",
    "middle_token_id",
    "fim_pre_token_id",
    "fim_suf_token_id",
    "fim_mid_token_id",
    "fim_pad_token_id",
    "fim_rep_token_id",
    "fim_sep_token_id",
}
# The words that a byte-level BPE merges within, as each model's tokenizer.json gives them
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_QWEN_WORDS = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_WORDS = _QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_BYTE_LEVEL = ("smollm", "qwen2", *_LLAMA3)


def convert(path: str | Path, folder: str | Path, progress: Progress = silent) -> Path:
    """Write a GGUF file as a folder in Hugging Face layout, float32.

    Architectures ``llama``, ``qwen2``, ``qwen3`` and ``gemma3`` (text alone). A key that changes
    the model or its tokens and is not built is refused by its name.

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
        check_header(path)
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        progress(f"reading {path.name}", 1, 1)
        _refuse_what_is_not_built(fields)
        stored = {tensor.name: tensor for tensor in reader.tensors}
        factors = stored.pop(_ROPE_FACTORS, None)
        contents = _config_json(fields, "output.weight" not in stored)
        if factors is not None:
            contents["rope_scaling"] = _scaling_of(np.array(factors.data), contents)
        config = ModelConfig.from_dict(contents)
        files = _tokenizer_files(fields)
        tensors = _tensors(gguf, stored, config, progress)
    except MinikvError as error:
        raise WeightsError(f"{path}: {error}") from None
    except KeyError as error:
        raise WeightsError(f"{path} is no usable GGUF file: it lacks {error.args[0]!r}") from error
    except Exception as error:  # the reader trusts its input, so damage shows in any way
        raise WeightsError(f"{path} is no usable GGUF file: {error!r:.200}") from error
    return save_folder(folder, config, tensors, files)


def _tensors(
    gguf: Any, stored: dict[str, Any], config: ModelConfig, progress: Progress
) -> dict[str, np.ndarray]:
    """Dequantised tensors under Hugging Face's names and in its conventions."""
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    total = 4 * sum(int(tensor.n_elements) for tensor in stored.values())
    done = 0
    tensors = {}
    for theirs, tensor in stored.items():
        name = _hf_name(theirs, config.model_type)
        values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        match = re.search(r"self_attn\.([qk])_proj\.weight$", name)
        if match and config.model_type == "llama":
            values = undo_permutation(values, heads[match[1]])
        if config.family.norm_offset and name.endswith("norm.weight"):
            values = values - np.float32(config.family.norm_offset)
        tensors[name] = values
        done += values.nbytes
        progress("dequantising", done, total)
    return tensors


def _refuse_what_is_not_built(fields: dict[str, Any]) -> None:
    """Raise `WeightsError` for a key that changes the model or its tokens and is not read here."""
    architecture = fields.get("general.architecture")
    if architecture not in _MODEL_TYPES:
        raise WeightsError(
            f"the GGUF file holds a {architecture!r:.40} model; built: {', '.join(_MODEL_TYPES)}"
        )
    kind = fields.get("general.type", "model")
    if kind != "model":
        raise WeightsError(f"general.type is {kind!r:.40}, expected 'model'")
    if fields.get("split.count", 1) not in (0, 1):
        raise WeightsError(
            f"split.count is {fields['split.count']!r:.40}: the model is split over files; join "
            "them with llama-gguf-split --merge"
        )
    read = _READ | _READ_OF_GEMMA if architecture == "gemma3" else _READ
    for name, value in fields.items():
        group, _, key = name.partition(".")
        if group == architecture and key not in read and not _is_unused(key, value):
            raise WeightsError(f"{name} is {value!r:.80}, a feature that is not built")
        tokenizer_key = name.removeprefix("tokenizer.ggml.")
        if tokenizer_key == name or tokenizer_key in _READ_OF_TOKENIZER:
            continue
        if not _is_unused(tokenizer_key, value):
            raise WeightsError(f"{name} is {value!r:.80}, a feature that is not built")
    if fields.get(f"{architecture}.attention.causal", True) is not True:
        raise WeightsError(f"{architecture}.attention.causal is false, a feature that is not built")


def _is_unused(key: str, value: Any) -> bool:
    """Whether a value turns a key off."""
    if isinstance(value, (list, tuple)):
        return all(_is_unused(key, item) for item in value)
    return value in _UNUSED or (key in _UNUSED_FACTORS and value == 1)


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


def _hf_name(name: str, model_type: str) -> str:
    match = re.fullmatch(r"(blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    layer = _LAYER_NAMES | _GEMMA_NAMES if model_type == "gemma3_text" else _LAYER_NAMES
    known = layer if match and match[1] else _NAMES
    if not match or match[3] not in known:
        raise WeightsError(f"the GGUF file holds the tensor {name!r:.80}, which is not built")
    prefix = f"model.layers.{match[2]}." if match[1] else ""
    return f"{prefix}{known[match[3]]}.{match[4]}"


def _config_json(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    """The metadata as the contents of a ``config.json``."""
    architecture = fields["general.architecture"]

    def given(key: str, default: Any = None) -> Any:
        value = fields.get(f"{architecture}.{key}", default)
        if not isinstance(value, list):
            return value
        if any(item != value[0] for item in value):
            raise WeightsError(f"{architecture}.{key} differs by layer, which is not built")
        return value[0]

    def number(key: str, default: float) -> float:
        # Stored as float32; the shortest decimal that rounds to it is what was meant.
        return float(str(np.float32(given(key, default))))

    heads = given("attention.head_count")
    width = given("embedding_length")
    layers = given("block_count")
    head_dim = given("attention.key_length", width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if given(key, head_dim) != head_dim:
            raise WeightsError(
                f"{architecture}.{key} is {given(key)!r:.40}, expected the width of a head, "
                f"{head_dim!r:.40}"
            )
    tokens = len(fields["tokenizer.ggml.tokens"])
    if given("vocab_size", tokens) != tokens:
        raise WeightsError(
            f"{architecture}.vocab_size is {given('vocab_size')!r:.40}, but "
            f"tokenizer.ggml.tokens holds {tokens}"
        )
    config = {
        "model_type": _MODEL_TYPES[architecture],
        "tie_word_embeddings": tied,
        "vocab_size": tokens,
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
        "eos_token_id": _ends(fields),
    }
    factor = number("rope.scaling.factor", number("rope.scale_linear", 0.0))
    kind = given("rope.scaling.type", "linear" if factor not in (0, 1) else "none")
    if kind != "none":
        config["rope_scaling"] = {"rope_type": kind, "factor": factor or 1.0}
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


def _ends(fields: dict[str, Any]) -> list[int]:
    """The tokens that end a text, a turn or a message."""
    told = [fields.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    return list(dict.fromkeys(token for token in told if token is not None))


def _scaling_of(factors: np.ndarray, contents: dict[str, Any]) -> dict[str, Any] | None:
    """Llama 3's scaling from ``rope_freqs.weight``, which holds what each frequency is divided by.

    llama.cpp's converter makes it with the numbers of Llama 3.1 and 3.2 and leaves them out, so
    those are tried: they are right if they give the same factors.
    """
    if "rope_scaling" in contents:
        raise WeightsError(f"the file has {_ROPE_FACTORS} and rope.scaling.type: one is expected")
    if (factors == 1).all():
        return None
    factor = float(str(np.float32(factors.max())))
    scaling = {"rope_type": "llama3", **asdict(RopeScaling(factor, 1.0, 4.0, 8192))}
    plain = rope_frequencies(ModelConfig.from_dict(contents))
    scaled = rope_frequencies(ModelConfig.from_dict(contents | {"rope_scaling": scaling}))
    # Each factor is a float32 quotient of float32 frequencies: with the product here, three
    # roundings of 2**-24, beside the error of the converter's power, which is not ours to bound.
    # So this is no claim about bits: 2e-6, some 33 roundings, only tells whose numbers were used.
    if factors.shape == plain.shape and np.allclose(factors * scaled, plain, rtol=2e-6, atol=0):
        return scaling
    raise WeightsError(
        f"{_ROPE_FACTORS} is not what Llama 3's factor {factor:g}, low_freq_factor 1, "
        "high_freq_factor 4 and original_max_position_embeddings 8192 give: not built"
    )


def _merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE vocabulary, best first.

    SentencePiece joins the two neighbours whose whole has the highest score. So each way to cut a
    token into two others is a merge, and it ranks by the token's score. Runs of spaces, which
    are tokens by themselves, come first.
    """
    score = {}
    for token, given, kind in zip(tokens, scores, kinds, strict=True):
        if kind == _NORMAL:
            score[token] = given
        elif kind == _USER_DEFINED and not token.strip(_SPACE):
            score[token] = math.inf
    best = sorted((token for token in score if len(token) > 1), key=lambda t: (-score[t], len(t)))
    cuts = ((token[:i], token[i:]) for token in best for i in range(len(token) - 1, 0, -1))
    return [cut for cut in cuts if cut[0] in score and cut[1] in score]


def _tokenizer_files(fields: dict[str, Any]) -> dict[str, str]:
    """``tokenizer.json`` and ``tokenizer_config.json`` from the metadata."""

    def given(key: str, default: Any = None) -> Any:
        return fields.get(f"tokenizer.ggml.{key}", default)

    kind = given("model")
    words = given("pre")
    kinds = fields["tokenizer.ggml.token_type"]
    tokens = fields["tokenizer.ggml.tokens"]
    met_later = set[str]()  # after spaces have become the letter that stands for them
    if kind == "llama":
        tokens = [
            token.replace(" ", _SPACE) if sort == _USER_DEFINED else token
            for token, sort in zip(tokens, kinds, strict=True)
        ]
        scores = fields["tokenizer.ggml.scores"]
        merges = _merges(tokens, scores, kinds)
        met_later = {token for token in tokens if _SPACE in token} - {a + b for a, b in merges}
        unknown = tokens[given("unknown_token_id", 0)]
        tokenizer = _sentencepiece(tokens, merges, unknown, given("add_space_prefix", True))
    elif kind == "gpt2" and words in _BYTE_LEVEL:
        tokenizer = _byte_level(tokens, fields["tokenizer.ggml.merges"], words)
    else:
        raise WeightsError(
            f"tokenizer.ggml.model is {kind!r:.40} with tokenizer.ggml.pre {words!r:.40}, which "
            f"is not built; built: 'llama', and 'gpt2' with {', '.join(map(repr, _BYTE_LEVEL))}"
        )
    package = require("tokenizers", "converting a GGUF file")
    tokenizer.add_tokens(
        [
            package.AddedToken(token, normalized=token in met_later, special=sort == _CONTROL)
            for token, sort in zip(tokens, kinds, strict=True)
            if sort in (_CONTROL, _USER_DEFINED)
        ]
    )
    starts = given("add_bos_token", kind == "llama" or words in _LLAMA3)
    around = {
        "bos": given("bos_token_id") if starts else None,
        "eos": given("eos_token_id") if given("add_eos_token", False) else None,
    }
    _put_around(tokenizer, {key: (tokens[i], i) for key, i in around.items() if i is not None})
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
        "tokenizer_config.json": _tokenizer_config(fields, tokens),
    }


_SPACE = "▁"  # what SentencePiece writes for a space


def _sentencepiece(
    tokens: list[str], merges: list[tuple[str, str]], unknown: str, space_first: bool
) -> Any:
    """A SentencePiece vocabulary, with a space before a text where its model wants one."""
    package = require("tokenizers", "converting a GGUF file")
    decoders = package.decoders
    normalizers = package.normalizers
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = package.Tokenizer(
        package.models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    if space_first:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_SPACE), tokenizer.normalizer]
        )
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _byte_level(tokens: list[str], merges: list[str], words: str) -> Any:
    """A byte-level BPE vocabulary that merges within one kind of words."""
    package = require("tokenizers", "converting a GGUF file")
    splits = package.pre_tokenizers
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    whole_words_first = words in _LLAMA3
    tokenizer = package.Tokenizer(
        package.models.BPE(vocabulary, pairs, ignore_merges=whole_words_first)
    )
    split = splits.Digits(individual_digits=True)
    if words == "qwen2":
        split = splits.Split(package.Regex(_QWEN_WORDS), "isolated")
        tokenizer.normalizer = package.normalizers.NFC()
    if words in _LLAMA3:
        split = splits.Split(package.Regex(_LLAMA3_WORDS), "isolated")
    in_bytes = splits.ByteLevel(add_prefix_space=False, use_regex=words == "smollm")
    tokenizer.pre_tokenizer = splits.Sequence([split, in_bytes])
    tokenizer.decoder = package.decoders.ByteLevel()
    return tokenizer


def _put_around(tokenizer: Any, around: dict[str, tuple[str, int]]) -> None:
    """Have the start or end token put around every text."""
    if not around:
        return
    processors = require("tokenizers.processors", "converting a GGUF file")
    pattern = ["$A"]
    if "bos" in around:
        pattern.insert(0, around["bos"][0])
    if "eos" in around:
        pattern.append(around["eos"][0])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=pattern, special_tokens=list(around.values())
    )


def _tokenizer_config(fields: dict[str, Any], tokens: list[str]) -> str:
    """``tokenizer_config.json``: special tokens by name, and the chat template."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields[f"{fields['general.architecture']}.context_length"],
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = fields.get(f"tokenizer.ggml.{theirs}_token_id")
        if index is not None:
            settings[f"{ours}_token"] = tokens[index]
    template = fields.get("tokenizer.chat_template")
    if template:
        settings["chat_template"] = template
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"

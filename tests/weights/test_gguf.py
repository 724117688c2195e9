"""GGUF files become the folders that their models came from, or are refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from folders import assert_same_tensors, small, small_tensors
from gguf_writer import write_gguf

from minikv.config import ModelConfig, RopeScaling
from minikv.errors import WeightsError
from minikv.weights import load_tensors

gguf = pytest.importorskip("minikv.weights.gguf")
pytest.importorskip("gguf", reason="needs the extra `fetch`")

CONFIGS = {
    "llama": small(num_hidden_layers=2, head_dim=4, tie_word_embeddings=False),
    "qwen2": small(num_hidden_layers=2, head_dim=4, model_type="qwen2"),
    "qwen3": small(num_hidden_layers=2, head_dim=8, model_type="qwen3"),
    "gemma3": ModelConfig.from_dict(
        {
            "model_type": "gemma3_text",
            "vocab_size": 7,
            "hidden_size": 4,
            "intermediate_size": 6,
            "num_hidden_layers": 7,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 5,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "tie_word_embeddings": True,
            "eos_token_id": [],
        }
    ),
}
WORDS = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "qwen2",
    "tokenizer.ggml.tokens": [*"abcdef", "ab"],
    "tokenizer.ggml.token_type": [1] * 7,
    "tokenizer.ggml.merges": ["a b"],
}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_gguf_file_of_every_architecture_gives_its_tensors_and_configuration(
    tmp_path, architecture
):
    config = CONFIGS[architecture]
    tensors = small_tensors(config)
    path = write_gguf(tmp_path / "a.gguf", config, tensors, WORDS)
    folder = gguf.convert(path, tmp_path / "out")
    assert ModelConfig.from_file(folder / "config.json") == config
    if architecture == "gemma3":  # 1 was added in float32, and is taken away in float32
        one = np.float32(1)
        tensors = {n: (t + one) - one if "norm" in n else t for n, t in tensors.items()}
    assert_same_tensors(load_tensors(folder, config), tensors)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_gguf_file_with_other_conventions_gives_other_tensors(tmp_path, architecture):
    # The control: rows permuted where they are not, or the other way round; norms without the 1.
    config = CONFIGS[architecture]
    tensors = small_tensors(config)
    path = write_gguf(tmp_path / "a.gguf", config, tensors, WORDS, conventional=False)
    loaded = load_tensors(gguf.convert(path, tmp_path / "out"), config)
    differ = {name for name in tensors if not np.array_equal(loaded[name], tensors[name])}
    changed = ["q_proj.weight", "k_proj.weight"]
    if architecture == "gemma3":
        changed.append("norm")
    assert differ == {name for name in tensors if any(part in name for part in changed)}


def test_scores_of_the_largest_gemma_have_their_own_scale():
    for layers, scalar in ((62, 168), (48, 128)):  # 27B and 12B
        fields = {
            "embedding_length": 5376,
            "attention.head_count": 32,
            "block_count": layers,
            "attention.key_length": 128,
            "attention.sliding_window": 1024,
        }
        fields = {f"gemma3.{key}": value for key, value in fields.items()}
        fields |= {"general.architecture": "gemma3", "tokenizer.ggml.tokens": ["a"]}
        config = gguf._config_json(fields, tied=True)
        assert config["query_pre_attn_scalar"] == scalar
        assert config["layer_types"].count("full_attention") == layers // 6


# Every key that changes the model or its tokens is read, or refused by its name


def converted(folder: Path, architecture: str = "llama", **fields: Any) -> Path:
    config = CONFIGS[architecture]
    path = write_gguf(folder / "a.gguf", config, small_tensors(config), WORDS | fields)
    return gguf.convert(path, folder / "out")


def format_keys() -> list[str]:
    """All keys of an architecture and of tokenizers that the format's list has."""
    from gguf.constants import Keys

    found: list[str] = []

    def collect(group: type) -> None:
        for name, value in vars(group).items():
            if isinstance(value, str) and "{arch}" in value and "{dense}" not in value:
                found.append(value.replace("{arch}.", ""))
            elif isinstance(value, str) and value.startswith("tokenizer.ggml."):
                found.append(value)
            elif isinstance(value, type) and not name.startswith("_"):
                collect(value)

    collect(Keys)
    return sorted(set(found))


OF_LLAMA = set(gguf._READ)
OF_WORDS = {f"tokenizer.ggml.{key}" for key in gguf._READ_OF_TOKENIZER}


@pytest.mark.parametrize("key", [k for k in format_keys() if k not in OF_LLAMA | OF_WORDS])
def test_a_key_that_is_not_read_is_refused_by_its_name_and_let_pass_where_it_is_off(key, tmp_path):
    name = key if key.startswith("tokenizer.") else f"llama.{key}"
    with pytest.raises(WeightsError, match=rf"{name} is 3, a feature that is not built"):
        converted(tmp_path, **{name: 3})
    assert converted(tmp_path, **{name: 0}).is_dir()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "'yarn'"),
        ({"llama.attention.value_length": 8}, r"llama\.attention\.value_length is 8"),
        ({"llama.rope.dimension_count": 2}, r"llama\.rope\.dimension_count is 2"),
        ({"llama.vocab_size": 9}, r"llama\.vocab_size is 9, .* holds 7"),
        ({"llama.attention.causal": False}, r"llama\.attention\.causal is false"),
        ({"llama.attention.head_count": [2, 1]}, r"head_count differs by layer"),
        ({"llama.logit_scale": 2.0}, r"llama\.logit_scale is 2"),
        ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"split.count": 3}, "split.count is 3"),
        ({"tokenizer.ggml.precompiled_charsmap": [1, 2]}, "precompiled_charsmap"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"tokenizer.ggml.pre": "gpt-4o"}, "'gpt-4o', which is not built"),
        ({"tokenizer.ggml.model": "t5"}, "'t5'"),
        ({"blk.0.attn_qkv.weight": np.ones((2, 2), np.float32)}, r"blk\.0\.attn_qkv\.weight"),
    ],
)
def test_a_value_that_is_not_built_is_refused_by_its_name(fields, said, tmp_path):
    with pytest.raises(WeightsError, match=said) as caught:
        converted(tmp_path, **fields)
    assert "a.gguf" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"llama.logit_scale": 1.0},
        {"llama.attention.causal": True},
        {"llama.attention.head_count": [2, 2]},
        {"llama.expert_count": 0},
        {"general.type": "model"},
        {"tokenizer.ggml.precompiled_charsmap": None},
    ],
)
def test_a_value_that_turns_its_feature_off_changes_nothing(fields, tmp_path):
    folder = converted(tmp_path, **fields)
    assert ModelConfig.from_file(folder / "config.json") == CONFIGS["llama"]


@pytest.mark.parametrize(
    "fields",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ],
)
def test_every_spelling_of_a_linear_scaling_is_read(fields, tmp_path):
    config = ModelConfig.from_file(converted(tmp_path, **fields) / "config.json")
    assert config.rope_scaling == RopeScaling(4.0)


def llama3_factors(theta: float, head_dim: int, scaling: RopeScaling) -> np.ndarray:
    """As llama.cpp's converter makes them, term by term."""
    factors = []
    for i in range(0, head_dim, 2):
        frequency = 1.0 / theta ** (i / head_dim)
        wavelength = 2 * math.pi / frequency
        if wavelength < scaling.original_max_position_embeddings / scaling.high_freq_factor:
            factors.append(1.0)
        elif wavelength > scaling.original_max_position_embeddings / scaling.low_freq_factor:
            factors.append(scaling.factor)
        else:
            smooth = scaling.original_max_position_embeddings / wavelength
            smooth -= scaling.low_freq_factor
            smooth /= scaling.high_freq_factor - scaling.low_freq_factor
            factors.append(1 / ((1 - smooth) / scaling.factor + smooth))
    return np.array(factors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_factors_become_its_scaling(factor, tmp_path):
    config = small(head_dim=64, rope_theta=500000.0, rope_scaling=RopeScaling(factor, 1, 4, 8192))
    factors = llama3_factors(500000.0, 64, config.rope_scaling)
    assert len(set(factors.tolist())) > 3  # short waves, long ones, and those between
    fields = WORDS | {"rope_freqs.weight": factors}
    path = write_gguf(tmp_path / "a.gguf", config, small_tensors(config), fields)
    folder = gguf.convert(path, tmp_path / "out")
    assert ModelConfig.from_file(folder / "config.json") == config


@pytest.mark.parametrize(
    "factors",
    [
        llama3_factors(500000.0, 64, RopeScaling(32.0, 1.0, 4.0, 4096)),
        llama3_factors(10000.0, 64, RopeScaling(32.0, 1.0, 4.0, 8192)),
        llama3_factors(500000.0, 32, RopeScaling(32.0, 1.0, 4.0, 8192)),
        np.linspace(1, 2, 32, dtype=np.float32),
    ],
)
def test_other_factors_are_refused_by_their_name(factors, tmp_path):
    config = small(head_dim=64, rope_theta=500000.0)
    fields = WORDS | {"rope_freqs.weight": factors}
    path = write_gguf(tmp_path / "a.gguf", config, small_tensors(config), fields)
    with pytest.raises(WeightsError, match=r"rope_freqs\.weight is not what Llama 3"):
        gguf.convert(path, tmp_path / "out")


def test_factors_of_one_scale_nothing(tmp_path):
    folder = converted(tmp_path, **{"rope_freqs.weight": np.ones(2, np.float32)})
    assert ModelConfig.from_file(folder / "config.json").rope_scaling is None


def test_every_token_that_ends_something_ends_a_text(tmp_path):
    fields = {f"tokenizer.ggml.{key}_token_id": i for i, key in enumerate(("eos", "eot", "eom"))}
    folder = converted(tmp_path, **fields)
    assert ModelConfig.from_file(folder / "config.json").eos_token_id == (0, 1, 2)


def backend(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({}, [6]),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 3}, [3, 6]),
        ({"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eos_token_id": 4}, [6, 4]),
        ({"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.bos_token_id": 3}, [6]),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 3}, [3, 6]),
    ],
)
def test_what_is_put_around_a_text_is_what_the_file_says(fields, ids, tmp_path):
    assert backend(converted(tmp_path, **fields)).encode("ab").ids == ids


def test_llama_3_takes_a_whole_word_before_it_merges(tmp_path):
    tokens = [*"abc", "bc", "abc"]
    fields = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * 5}
    fields["tokenizer.ggml.merges"] = ["b c"]
    config = small(vocab_size=5)
    for pre, ids in (("llama-bpe", [4]), ("qwen2", [0, 3])):
        more = {"tokenizer.ggml.pre": pre, "tokenizer.ggml.add_bos_token": False}
        path = tmp_path / f"{pre}.gguf"
        write_gguf(path, config, small_tensors(config), WORDS | fields | more)
        assert backend(gguf.convert(path, tmp_path / pre)).encode("abc").ids == ids


def test_damage_in_a_chat_template_is_kept_as_text(tmp_path):
    folder = converted(tmp_path, **{"tokenizer.chat_template": "{{ é }}"})
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["chat_template"] == "{{ é }}"


def place_of(data: bytes, key: str) -> int:
    """Where the value of a key begins: its type, and what follows."""
    name = key.encode()
    return data.index(len(name).to_bytes(8, "little") + name) + 8 + len(name)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("key", "offset", "value", "said"),
    [
        ("tokenizer.ggml.tokens", 8, 2**60, "expected at most 4194304"),
        ("tokenizer.ggml.tokens", 8, 2**22, "beyond its end"),
        ("tokenizer.ggml.token_type", 8, 2**40, "expected at most 4194304"),
        ("tokenizer.ggml.model", 4, 2**60, "beyond its end"),
        ("llama.block_count", 0, 9 + (4 << 32), "no usable GGUF file"),
        ("llama.block_count", 0, 77, "type 77"),
    ],
)
def test_a_length_beyond_the_file_is_refused_and_not_counted_to(tmp_path, key, offset, value, said):
    config = CONFIGS["llama"]
    path = write_gguf(tmp_path / "a.gguf", config, small_tensors(config), WORDS)
    data = bytearray(path.read_bytes())
    place = place_of(data, key) + offset
    data[place : place + 8] = value.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=said):
        gguf.convert(path, tmp_path / "out")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("offset", "what"), [(8, "tensors"), (16, "keys")])
def test_a_count_beyond_the_file_is_refused(tmp_path, offset, what):
    config = CONFIGS["llama"]
    path = write_gguf(tmp_path / "a.gguf", config, small_tensors(config), WORDS)
    data = bytearray(path.read_bytes())
    data[offset : offset + 8] = (2**62).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="no usable GGUF file"):
        gguf.convert(path, tmp_path / "out")

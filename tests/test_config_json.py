"""config.json is read as transformers reads it, or refused in one line that names the key."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import config_cases
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikv import ModelConfig, RopeScaling, random_tensors, tiny_config
from minikv.config import FAMILIES, FULL, SLIDING
from minikv.errors import ConfigError
from minikv.weights import save_folder

SMOLLM = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 49152,
}
MISTRAL = {"model_type": "mistral", "sliding_window": 512}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_smollm_reads_as_on_the_hub():
    config = ModelConfig.from_dict(SMOLLM)
    assert (config.head_dim, config.num_parameters) == (64, 134_515_008)
    assert config.kv_bytes_per_token() == 46_080
    assert config.residual_bytes_per_token() == 2_304


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
        {"rope_parameters": {"rope_theta": 500000.0, **LLAMA3}, "rope_theta": None},
        {"rope_scaling": {**LLAMA3, "rope_theta": 500000.0}, "rope_theta": None},
    ],
)
def test_both_spellings_of_llama3_rope_are_read(spelling):
    given = {**SMOLLM, **spelling}
    if given["rope_theta"] is None:
        del given["rope_theta"]
    config = ModelConfig.from_dict(given)
    assert config.rope_theta == 500000.0
    assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


MIXED = {"layer_types": (SLIDING, FULL), "sliding_window": 2}


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        ModelConfig.from_dict(SMOLLM),
        tiny_config(model_type="mistral", layer_types=(SLIDING,) * 2, sliding_window=2),
        tiny_config(model_type="qwen2", **MIXED),
        tiny_config(
            model_type="gemma3_text", rope_local_base_freq=7.0, query_pre_attn_scalar=9.0, **MIXED
        ),
        tiny_config(
            model_type="gemma3_text",
            rope_local_base_freq=7.0,
            query_pre_attn_scalar=9.0,
            rope_scaling=RopeScaling(8.0),
        ),
    ],
)
def test_to_dict_reads_back(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_scaled_gemma_without_sliding_layers_can_be_written(tmp_path):
    config = tiny_config(model_type="gemma3_text", rope_scaling=RopeScaling(8.0))
    folder = save_folder(tmp_path / "m", config, random_tensors(config, 0))
    assert ModelConfig.from_folder(folder).rope_scaling == RopeScaling(8.0)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("window", [{"sliding_window": 5}, {**MIXED, "layer_types": (FULL,) * 2}])
def test_a_window_that_no_layer_uses_is_not_written(kind, window):
    config = tiny_config(model_type=kind, **window)
    again = ModelConfig.from_dict(config.to_dict())
    assert [again.window(0), again.window(1)] == [None, None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (MIXED, "layer_types"),
        ({"model_type": "mistral", **MIXED}, "layer_types"),
        ({"query_pre_attn_scalar": 9.0}, "query_pre_attn_scalar 9"),
        ({"model_type": "qwen2", **MIXED, "rope_local_base_freq": 7.0}, "rope_local_base_freq 7.0"),
        (
            {"model_type": "gemma3_text", **MIXED, "rope_scaling": RopeScaling(8.0)},
            "rope_local_base_freq None",
        ),
    ],
)
def test_what_no_config_json_can_hold_is_told_before_anything_is_written(change, words, tmp_path):
    with pytest.raises(ConfigError, match=f"no config.json.*{words}"):
        save_folder(tmp_path / "m", tiny_config(**change), {})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "'yarn'"),
        ({"rope_scaling": {**LLAMA3, "factor": -1}}, "factor"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor"),
        ({"rope_scaling": 7}, "rope_scaling"),
        ({"num_key_value_heads": 2}, "multiple"),
        ({"hidden_size": 577}, "head_dim"),
        ({"head_dim": 63}, "even"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"num_hidden_layers": 30.0}, "num_hidden_layers"),
        ({"vocab_size": True}, "vocab_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"eos_token_id": 49152}, "49152"),
        ({"eos_token_id": "end"}, "eos_token_id"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({**MISTRAL, "layer_types": ["chunked_attention"] * 30}, "chunked_attention"),
        ({**MISTRAL, "layer_types": [FULL] * 7}, "7 layers"),
        ({**MISTRAL, "layer_types": "full_attention"}, "expected a list"),
        ({**MISTRAL, "layer_types": [FULL] * 15 + [SLIDING] * 15}, "layer_types differ"),
        ({**MISTRAL, "layer_types": [FULL] * 30}, "layer_types differ"),
        ({**MISTRAL, "layer_types": [[1]] * 30}, "layer_types holds"),
        (
            {
                "model_type": "gemma3_text",
                "hidden_act": None,
                "sliding_window": 4,
                "layer_types": ["linear_attention"] * 15 + [FULL] * 15,
            },
            "linear_attention",
        ),
        (
            {
                "model_type": "gemma3_text",
                "rope_theta": None,
                "sliding_window": 4,
                "rope_parameters": {
                    FULL: {"rope_type": "default", "rope_theta": 1e6},
                    SLIDING: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
                },
            },
            "scales sliding layers",
        ),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 10**400}}, "factor"),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 0.5}}, "whole"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_dict({**SMOLLM, **change})


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_a_missing_key_is_named(key):
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_dict({k: v for k, v in SMOLLM.items() if k != key})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(key=st.sampled_from([*sorted(SMOLLM), "head_dim", "rope_parameters"]), value=JSON)
def test_no_value_of_any_key_crashes(key, value):
    with contextlib.suppress(ConfigError):
        ModelConfig.from_dict({**SMOLLM, key: value})


@pytest.mark.parametrize("key", ["hidden_size", "model_type", "eos_token_id", "rope_scaling"])
def test_a_long_value_is_quoted_in_part(key):
    with pytest.raises(ConfigError, match=key) as caught:
        ModelConfig.from_dict(SMOLLM | {key: "9" * 10_000})
    assert len(str(caught.value)) < 300


# Two places and two spellings


@pytest.mark.parametrize(("kind", "added", "expected"), config_cases.TAKEN)
def test_a_setting_with_two_places_is_taken_as_transformers_takes_it(kind, added, expected):
    got = config_cases.meaning(ModelConfig.from_dict(config_cases.base(kind) | added))
    assert {key: got[key] for key in expected} == expected


@pytest.mark.parametrize(("kind", "added", "names"), config_cases.REFUSED)
def test_two_places_that_disagree_are_refused_by_their_names(kind, added, names):
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict(config_cases.base(kind) | added)
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)


def seeing(top: dict, **text: object) -> dict:
    """A Gemma 3 that sees, with settings of its top level and of its text model."""
    inner = config_cases.base("gemma3_text") | text
    return {"model_type": "gemma3", "text_config": inner, "vision_config": {}, **top}


@pytest.mark.parametrize(
    ("contents", "ends", "tied"),
    [
        (seeing({}), (1,), True),
        (seeing({"eos_token_id": [1, 6]}), (1, 6), True),
        (seeing({"eos_token_id": [1, 6]}, eos_token_id=1), (1, 6), True),
        (seeing({}, eos_token_id=[5]), (5,), True),
        (seeing({"tie_word_embeddings": False}), (1,), False),
        (seeing({"tie_word_embeddings": True}, tie_word_embeddings=True), (1,), True),
    ],
)
def test_a_model_that_sees_is_read_from_both_its_levels(contents, ends, tied):
    config = ModelConfig.from_dict(contents)
    assert config.model_type == "gemma3_text"
    assert (config.eos_token_id, config.tie_word_embeddings) == (ends, tied)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (seeing({"tie_word_embeddings": False}, tie_word_embeddings=True), "tie_word_embeddings"),
        (seeing({"quantization_config": {"bits": 4}}), "quantization_config"),
        (seeing({}, quantization_config={"bits": 4}), "quantization_config"),
        (seeing({}, model_type="llama4_text"), "'llama4_text'"),
        (seeing({"model_type": "llava"}), "'llava'"),
        (seeing({"text_config": None}), "'gemma3'"),
    ],
)
def test_a_model_that_sees_is_refused_by_the_key_of_either_level(contents, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_dict(contents)


def test_generation_config_json_says_what_ends_a_text(tmp_path):
    contents = config_cases.base("llama") | {"eos_token_id": 2}
    (tmp_path / "config.json").write_text(json.dumps(contents))
    assert ModelConfig.from_folder(tmp_path).eos_token_id == (2,)
    for told, ends in (
        ({}, (2,)),
        ({"eos_token_id": None}, (2,)),
        ({"eos_token_id": [2, 7]}, (2, 7)),
    ):
        (tmp_path / "generation_config.json").write_text(json.dumps(told))
        assert ModelConfig.from_folder(tmp_path).eos_token_id == ends
    for told in ("[]", "{", '{"eos_token_id": "x"}', '{"eos_token_id": 97}'):
        (tmp_path / "generation_config.json").write_text(told)
        with pytest.raises(ConfigError, match=r"generation_config\.json"):
            ModelConfig.from_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="no plain file"):
        ModelConfig.from_file(tmp_path / "config.json")


def test_readme_names_every_family_that_loads():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("## What loads") :]
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line[:1] == "|"}
    assert all(f"`{kind}`" in rows["`config.json`"] for kind in FAMILIES)
    gguf = pytest.importorskip("minikv.weights.gguf")
    assert all(f"`{architecture}`" in rows["a GGUF file"] for architecture in gguf._MODEL_TYPES)

"""config.json is read as it is on the hub, or refused in one line that names the key."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minikv import ModelConfig, RopeScaling, tiny_config
from minikv.config import FAMILIES
from minikv.errors import ConfigError
from minikv.weights.config_json import check_reads_back

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


SLIDING, FULL = "sliding_attention", "full_attention"
MIXED = {"layer_types": (SLIDING, FULL), "sliding_window": 2}


@pytest.mark.parametrize(
    "config",
    [
        tiny_config(),
        ModelConfig.from_dict(SMOLLM),
        tiny_config(model_type="mistral", **MIXED),
        tiny_config(model_type="mistral", layer_types=(SLIDING,) * 2, sliding_window=2),
        tiny_config(model_type="qwen2", **MIXED),
    ],
)
def test_to_dict_reads_back(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    check_reads_back(config)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("window", [{"sliding_window": 5}, {**MIXED, "layer_types": (FULL,) * 2}])
def test_a_window_that_no_layer_uses_is_not_written(kind, window):
    config = tiny_config(model_type=kind, **window)
    check_reads_back(config)
    again = ModelConfig.from_dict(config.to_dict())
    assert [again.window(0), again.window(1)] == [None, None]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (MIXED, "sliding_window is 2, which llama does not have"),
        ({"model_type": "qwen2", **MIXED, "rope_local_base_freq": 7.0}, "rope_local_base_freq 7.0"),
        (
            {"model_type": "gemma3_text", **MIXED, "rope_scaling": RopeScaling(8.0)},
            "rope_local_base_freq None",
        ),
    ],
)
def test_what_no_config_json_can_hold_is_told(change, words):
    with pytest.raises(ConfigError, match=words):
        check_reads_back(tiny_config(**change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"sliding_window": 512}, "sliding_window"),
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
        ({"layer_types": ["chunked_attention"] * 30}, "chunked_attention"),
        ({"layer_types": [FULL] * 7}, "7 layers"),
        ({"layer_types": "full_attention"}, "expected a list"),
        ({"model_type": "mistral", "layer_types": [[1]] * 30}, "layer_types holds"),
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
                "hidden_act": None,
                "sliding_window": 4,
                "rope_parameters": {
                    FULL: {"rope_type": "default", "rope_theta": 1e6},
                    SLIDING: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
                },
            },
            "scales sliding layers by 'linear'",
        ),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 10**400}}, "factor"),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 0.5}}, "whole"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_dict({**SMOLLM, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_types": SLIDING}, "layer_types"),
        ({"layer_types": 5}, "layer_types"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"model_type": []}, "model_type"),
        ({"eos_token_id": "5"}, "eos_token_id"),
        ({"query_pre_attn_scalar": 10**400}, "query_pre_attn_scalar"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(change, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(**change)


def test_a_list_and_a_single_id_are_kept_as_tuples():
    config = tiny_config(layer_types=[SLIDING] * 2, sliding_window=2, eos_token_id=5)
    assert (config.layer_types, config.eos_token_id) == ((SLIDING,) * 2, (5,))
    assert config.window(0) == 2


@pytest.mark.parametrize(
    "numbers",
    [(-1.0,), ("8",), (0,), (float("nan"),), (8.0, 1.0), (8.0, 4.0, 1.0, 32), (8.0, 1.0, 4.0, 0.5)],
)
def test_rotary_scaling_is_checked_where_it_is_made(numbers):
    with pytest.raises(ConfigError, match="RoPE"):
        RopeScaling(*numbers)


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

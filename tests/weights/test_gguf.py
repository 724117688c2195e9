"""GGUF files become the folders that their models came from, or are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from folders import assert_same_tensors, small, small_tensors
from gguf_writer import write_gguf

from minikv.config import ModelConfig
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

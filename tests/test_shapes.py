"""The shipped shapes are those of the published models, and ``prove --shape`` can fail on them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import minikv
from minikv.cli import main
from minikv.config import FULL, SLIDING
from minikv.errors import InputError
from minikv.shapes import PER_TOKEN, SHAPES, per_token, shape
from minikv.verify import Refuted, dataflow
from minikv.verify.blocks import Block, check_block, prove_shape
from minikv.verify.theorems import t01_projection

DATA = Path(minikv.__file__).parent / "data"
# The hub's counts, embeddings once where they are tied; Gemma's as in Keras Hub's presets, whose
# 4B text model leaves out 64 of the 262,208 rows of the embedding.
PARAMETERS = {
    "smollm-135m": 134_515_008,
    "smollm2-135m": 134_515_008,
    "smollm-360m": 361_821_120,
    "smollm-1.7b": 1_711_376_384,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "qwen3-0.6b": 596_049_920,
    "qwen3-4b": 4_022_468_096,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_099_328 + 64 * 2560,
}
# A shape with every difference that a family makes, small enough to prove in a second.
SMALL = minikv.ModelConfig(
    vocab_size=97,
    hidden_size=40,
    intermediate_size=60,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    model_type="gemma3_text",
    sliding_window=9,
    layer_types=(SLIDING, FULL, SLIDING),
    rope_local_base_freq=100.0,
    bos_token_id=2,
    eos_token_id=(1,),
)


def test_every_shape_has_its_published_number_of_parameters():
    assert {name: shape(name).num_parameters for name in SHAPES} == PARAMETERS


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_says_where_it_comes_from(name):
    given = json.loads((DATA / "shapes" / f"{name}.json").read_text(encoding="utf-8"))
    assert given["_source"].startswith("config.json of huggingface.co/")


@pytest.mark.peers
@pytest.mark.parametrize("name", SHAPES)
def test_transformers_builds_the_same_model_from_the_same_file(name):
    torch = pytest.importorskip("torch", reason="needs the extra `peers`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `peers`")
    given = json.loads((DATA / "shapes" / f"{name}.json").read_text(encoding="utf-8"))
    config, ours = transformers.AutoConfig.for_model(**given), shape(name)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == ours.num_parameters
    types = getattr(config, "layer_types", None) or [FULL] * ours.num_hidden_layers
    kinds = [SLIDING if ours.window(index) else FULL for index in range(ours.num_hidden_layers)]
    assert types == kinds
    assert config.max_position_embeddings == ours.max_position_embeddings
    assert config.rms_norm_eps == ours.rms_norm_eps


def test_gemma_4b_slides_five_layers_of_six():
    config = shape("gemma-3-4b")
    windows = [config.window(index) for index in range(config.num_hidden_layers)]
    assert windows == [None if index % 6 == 5 else 1024 for index in range(34)]
    assert config.rope_scaling == minikv.config.RopeScaling(8.0)


def test_what_the_fetched_gemma_says_is_what_ships(gemma):
    assert minikv.ModelConfig.from_file(gemma / "config.json") == shape("gemma-3-270m")


def test_every_data_file_is_packaged():
    """The wheel holds what the package's folder does, but for what git passes over."""
    root = Path(__file__).parents[1]
    with open(root / "pyproject.toml", "rb") as file:
        wheel = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["minikv"]}
    ignored = (root / ".gitignore").read_text(encoding="utf-8").split()
    for path in DATA.rglob("*"):
        assert not any(path.match(pattern.rstrip("/")) for pattern in ignored), path


def test_an_unknown_shape_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'gpt-5' is unknown; choose deepseek-r1"):
        shape("gpt-5")


# --- proofs at a shape ----------------------------------------------------------------------------


def test_a_block_is_as_wide_as_the_model_and_slides_as_in_the_model():
    config = shape("gemma-3-270m")
    fourth, fifth = (Block(config, index).layer for index in (4, 5))
    for layer in (fourth, fifth):
        assert layer.q_proj.values.shape == (4 * 256, 640)
        assert layer.k_proj.values.shape == layer.v_proj.values.shape == (256, 640)
        assert layer.o_proj.values.shape == (640, 4 * 256)
        assert layer.q_norm.shape == (256,)
        assert layer.post_feedforward_layernorm.shape == (640,)
    assert (fourth.window, fifth.window) == (512, None)
    at = np.array([7])
    assert not np.array_equal(fourth.rotary(at)[0], fifth.rotary(at)[0])  # bases of their own


def test_a_blocks_matrices_have_a_variance_of_1_by_their_width_and_the_rest_is_within_1():
    biased = Block(shape("qwen2.5-0.5b"), 0, arithmetic="float32").layer
    normed = Block(shape("qwen3-0.6b"), 0, arithmetic="float32").layer
    for layer in (biased, normed):
        values = layer.q_proj.astype(np.float64)
        # The mean of n squares of uniform numbers has a relative deviation of 0.9 / sqrt(n).
        assert abs((values**2).mean() * layer.config.hidden_size - 1) < 9 / values.size**0.5
    for vector in (biased.q_bias, biased.input_layernorm, normed.q_norm):
        assert -1 <= vector.min() < -0.9
        assert 0.9 < vector.max() <= 1


@pytest.mark.parametrize(("index", "window"), [(4, 512), (5, 1024)])
def test_the_stream_of_a_block_spans_two_windows_at_most(index, window, monkeypatch):
    """Of a layer that sees everything: 1,024 tokens stand for a window."""
    seen = []

    class Enough(Exception):
        pass

    def noted(layer, stream, positions, *_):
        seen.append((stream, positions))
        raise Enough

    monkeypatch.setattr("minikv.verify.blocks.block", noted)
    with pytest.raises(Enough):
        check_block(Block(shape("gemma-3-270m"), index))
    stream, positions = seen[0]
    assert window < positions.max() - positions.min() < 2 * window
    assert len(np.unique(stream)) > stream.size / 2


def test_another_block_or_seed_has_other_weights():
    drawn = {
        Block(SMALL, index, seed).layer.k_proj.values.tobytes()
        for index, seed in ((0, 0), (1, 0), (0, 1))
    }
    assert len(drawn) == 3
    assert Block(SMALL, 1).layer.k_proj.values.tobytes() in drawn


def test_both_claims_hold_at_a_small_shape_and_their_controls_find_a_difference():
    certificate, blocks = prove_shape(SMALL)
    assert (certificate.id, certificate.verdict, certificate.examples) == ("D", "holds", 1)
    assert (blocks.id, blocks.verdict, blocks.examples) == ("T1", "holds", 3)
    assert "numbers differ" in blocks.control


def test_float32_is_refuted_at_true_width():
    with pytest.raises(Refuted, match="of block 3"):
        check_block(Block(shape("qwen2.5-0.5b"), 3, arithmetic="float32"))


def test_a_projection_that_reads_its_neighbours_is_refuted(monkeypatch):
    def blurred(residuals, positions, layer):
        return minikv.kv_from_residual(residuals - residuals.mean(axis=0), positions, layer)

    monkeypatch.setattr(t01_projection, "kv_from_residual", blurred)
    assert [result.verdict for result in prove_shape(SMALL)] == ["holds", "FAILS"]


def test_a_window_of_the_wrong_size_is_refuted(monkeypatch):
    """Only by the certificate, with a window of two: the true one is longer than its texts."""
    monkeypatch.setattr(minikv.layers.Layer, "window", property(lambda layer: None))
    certificate, blocks = prove_shape(SMALL)
    assert certificate.verdict == "FAILS"
    assert certificate.failure.startswith("Refuted: ")
    assert "T11: " in certificate.failure
    assert blocks.verdict == "holds"  # windows change what K and V are read, not what they are


@pytest.mark.slow
def test_the_command_proves_a_shape_and_says_what_it_took(tmp_path):
    told = tmp_path / "shape.json"  # in a process of its own, whose peak is of nothing else
    command = [sys.executable, "-m", "minikv", "prove", "--shape", "gemma-3-270m"]
    out = subprocess.run(
        [*command, "--output", told], check=True, capture_output=True, text=True
    ).stdout
    assert "268,098,176 parameters, 18 layers, 15 sliding" in out
    assert out.count("holds    found") == 2
    assert "peak memory" in out
    written = json.loads(told.read_text(encoding="utf-8"))
    assert [result["verdict"] for result in written["results"]] == ["holds", "holds"]
    assert written["bytes_per_token"]["full_kv"]["bfloat16"] == 18 * 2 * 256 * 2
    assert 0 < written["peak_memory_bytes"] < 4 * 2**30


def test_the_command_fails_where_a_claim_does(monkeypatch, capsys):
    monkeypatch.setattr(
        dataflow.LabelArithmetic,
        "softmax",
        lambda self, s: dataflow.Labels(
            np.broadcast_to(
                np.bitwise_or.reduce(s.bits, axis=-1, keepdims=True) & ~np.uint64(1 << 63), s.shape
            )
        ),
    )
    assert main(["prove", "--shape", "gemma-3-270m"]) == 1
    out = capsys.readouterr().out
    assert "FAILS" in out
    assert "sees the future" in out


def test_an_unknown_shape_is_one_line_on_the_command_line(capsys):
    assert main(["prove", "--shape", "gpt-5"]) == 2
    assert "choose deepseek-r1" in capsys.readouterr().err


# --- bytes a token --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_bytes_of_a_shape_are_counted_layer_by_layer(name):
    config, told = shape(name), per_token(shape(name))
    row = 2 * config.num_key_value_heads * config.head_dim * 2  # K and V of a layer, bfloat16
    windows = [config.window(index) for index in range(config.num_hidden_layers)]
    assert told["full_kv"]["bfloat16"] == row * len(windows)
    assert told["one_residual"]["bfloat16"] == config.hidden_size * 2
    assert told["residual_per_layer"]["float32"] == config.hidden_size * 4 * len(windows)
    assert told["token_id"] == {"float32": 4, "bfloat16": 4}
    if any(windows):
        assert list(told) == list(PER_TOKEN)
        assert told["unbounded_kv"]["bfloat16"] == row * windows.count(None)
        assert told["window_kv"]["bfloat16"] == row * sum(window or 0 for window in windows)
    else:
        assert list(told) == list(PER_TOKEN)[:-2]


def test_a_cache_of_a_sliding_model_reads_no_more_than_the_window_and_the_full_layers():
    """What `per_token` counts is enough: K and V further back change no bit of the next token."""
    model = minikv.random_model(SMALL, arithmetic="exact")
    ids, cache = list(range(30)), model.new_cache()
    model.forward([ids], [cache])
    expected = cache.fork()
    tensors, _ = cache.state()
    for index in range(SMALL.num_hidden_layers):
        if window := SMALL.window(index):
            for kind in "kv":
                tensors[f"{kind}.{index}"][: len(ids) + 1 - window] = 1e3
    cache._restore(tensors)
    got, full = (model.forward([[5]], [held]) for held in (cache, expected))
    assert got.tobytes() == full.tobytes()
    tensors["k.0"][len(ids) + 1 - SMALL.window(0)] = 1e3  # one more is one too many
    cache.truncate(len(ids))
    cache._restore(tensors)
    assert model.forward([[5]], [cache]).tobytes() != full.tobytes()

"""minikv against transformers on random tiny Llama models."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from layerwise import (
    first_divergence,
    in_float64,
    peer_modules,
    rms,
    rounded_once,
    torch_activations,
)

import minikv
from minikv.patching import run_with_cache
from minikv.rotary import rope_frequencies

torch, transformers = peer_modules()
pytestmark = pytest.mark.peers

SEEDS = range(30)
FAULTY = 7  # the model in which faults are planted: two blocks or more, grouped heads
U = 2.0**-24  # unit roundoff of float32


def random_peer_config(seed: int) -> Any:
    """A tiny `LlamaConfig`; features that must be covered cycle, numbers are drawn."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(2, 4))
    heads, kv_heads = [(groups, groups), (groups * 2, groups), (groups * 2, 1)][seed % 3]
    head_dim = 2 * int(rng.integers(2, 9))
    # Every second model has heads that do not fill the stream (or overfill it), D often odd;
    # transformers insists on a multiple of H all the same.
    hidden = heads * (head_dim if seed % 2 else 2 * int(rng.integers(1, 9)) + 1)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(10 ** rng.uniform(2, 6))}
    if seed % 5 in (1, 3):
        low = float(rng.uniform(0.5, 2))
        rope |= {
            "rope_type": "llama3",
            "factor": float(rng.uniform(2, 32)),
            "low_freq_factor": low,
            "high_freq_factor": low + float(rng.uniform(1, 6)),
            "original_max_position_embeddings": int(rng.integers(8, 65)),
        }
    return transformers.LlamaConfig(
        vocab_size=int(rng.integers(17, 150)),
        hidden_size=hidden,
        intermediate_size=int(rng.integers(7, 90)),
        num_hidden_layers=int(rng.integers(1, 5)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=128,
        rms_norm_eps=float(10 ** rng.uniform(-7, -3)),
        tie_word_embeddings=bool(seed // 3 % 2),
        rope_parameters=rope,
        attn_implementation="sdpa",  # "eager" takes its softmax in float32 whatever the dtype is
    )


def random_peer(seed: int) -> Any:
    """A float32 ``LlamaForCausalLM`` whose weights keep every activation of order one."""
    peer = transformers.LlamaForCausalLM(random_peer_config(seed)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.3 * draw)
            elif name == "model.embed_tokens.weight":
                parameter.copy_(draw)
            else:
                parameter.copy_(draw / math.sqrt(parameter.shape[1]))
    return peer


def ours(peer: Any, arithmetic: str) -> Any:
    """The same model in minikv: its configuration and tensors as transformers names them."""
    config = minikv.ModelConfig.from_dict(peer.config.to_dict())
    tensors = {name: value.numpy() for name, value in peer.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return minikv.build(config, tensors, arithmetic)


@cache
def prompt(seed: int) -> tuple[int, ...]:
    rng = np.random.default_rng(1000 + seed)
    vocab = random_peer_config(seed).vocab_size
    return tuple(rng.integers(0, vocab, int(rng.integers(1, 70))).tolist())


def test_the_draw_covers_every_feature():
    kinds, features = set(), set()
    for seed in SEEDS:
        config = random_peer_config(seed)
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        kind = "MHA" if heads == kv_heads else "MQA" if kv_heads == 1 else "GQA"
        kinds.add((kind, config.tie_word_embeddings))
        features.add(
            (
                config.rope_parameters["rope_type"],
                config.head_dim * heads == config.hidden_size,
            )
        )
    assert kinds == {(kind, tied) for kind in ("MHA", "GQA", "MQA") for tied in (True, False)}
    assert features == {(rope, full) for rope in ("default", "llama3") for full in (True, False)}
    assert len({len(prompt(seed)) for seed in SEEDS}) > 15


@pytest.mark.parametrize("seed", SEEDS)
def test_both_spellings_of_the_configuration_read_alike(seed):
    new = random_peer_config(seed).to_dict()  # transformers 5: rope_parameters
    old = dict(new)  # transformers 4: rope_theta beside rope_scaling
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config = minikv.ModelConfig.from_dict(new)
    assert config == minikv.ModelConfig.from_dict(old)
    assert config == minikv.ModelConfig.from_dict(config.to_dict())
    assert config.rope_theta == new["rope_parameters"]["rope_theta"]
    assert (config.rope_scaling is not None) == (rope["rope_type"] == "llama3")


@pytest.mark.parametrize("seed", SEEDS)
def test_rotary_frequencies_agree(seed):
    """minikv's frequencies are correctly rounded; transformers takes them in float32.

    Its exponent i/d is rounded to float32, which moves theta**(i/d) by up to ln(theta) u relative;
    the power and the quotient add a few u. Llama 3's interpolation, whose weight is a difference of
    rounded numbers, adds u times high / (high - low), and its stretching at most multiplies that by
    `factor`.
    """
    peer_config = random_peer_config(seed)
    config = minikv.ModelConfig.from_dict(peer_config.to_dict())
    theirs = transformers.LlamaForCausalLM(peer_config).model.rotary_emb.inv_freq.numpy()
    units = math.log(config.rope_theta) + 4
    scaling = config.rope_scaling
    if scaling is not None:
        span = scaling.high_freq_factor - scaling.low_freq_factor
        units += scaling.factor * (units + 4) * scaling.high_freq_factor / span
    frequencies = rope_frequencies(config)
    assert frequencies.dtype == theirs.dtype == np.float32
    assert (np.abs(frequencies.astype(float) - theirs) <= units * U * frequencies).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_float64_activations_and_logits_agree_to_1e9(seed):
    peer, ids = random_peer(seed), prompt(seed)
    weights = ours(peer, "float64")
    logits, activations = run_with_cache(weights, ids)
    peer = in_float64(peer, rope_frequencies(weights.config))
    peer_logits, peer_activations = torch_activations(peer, ids)
    expected = 2 + 14 * weights.config.num_hidden_layers
    assert len(activations.keys() & peer_activations.keys()) == expected
    assert first_divergence(activations, peer_activations, 1e-9) is None
    assert np.abs(logits - peer_logits).max() < 1e-9


def float32_excess(seed: int, spoil: Any = None) -> tuple[str, float]:
    """The activation of a float32 run with the largest ratio of its distance to what is allowed.

    A float32 sum of K terms rounds at most K times where `rounded_once` rounds once, so to first
    order a float32 run is at most K times as far from the float64 run, K the longest sum of the
    model. Both distances are RMS over an activation: they gather many independent roundings.
    """
    peer, ids = random_peer(seed), prompt(seed)
    exact_weights = ours(peer, "float64")
    config = exact_weights.config
    longest = max(
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads * config.head_dim,
        len(ids),
    )
    exact_logits, exact = run_with_cache(exact_weights, ids)
    once_logits, once = rounded_once(exact_weights, ids)
    if spoil is not None:
        spoil(peer)
    logits, activations = run_with_cache(ours(peer, "float32"), ids)
    peer_logits, peer_activations = torch_activations(peer, ids)
    assert logits.dtype == np.float32
    worst = ("", 0.0)
    for run, run_logits in ((activations, logits), (peer_activations, peer_logits)):
        for name, value in [*run.items(), ("logits", run_logits)]:
            truth = exact_logits if name == "logits" else exact[name]
            rounded = once_logits if name == "logits" else once[name]
            visible = np.isfinite(truth)  # masked scores are -inf
            allowed = longest * rms(rounded[visible] - truth[visible])
            distance = rms(value[visible] - truth[visible])
            if distance > worst[1] * allowed:
                worst = (name, distance / allowed if allowed else math.inf)
    return worst


@pytest.mark.parametrize("seed", SEEDS)
def test_float32_runs_of_both_stay_within_rounding_of_the_float64_run(seed):
    name, ratio = float32_excess(seed)
    assert ratio <= 1, f"{name} is {ratio:.3g} times as far as its roundings allow"


def test_a_small_fault_is_more_than_rounding():
    def spoil(peer: Any) -> None:  # one weight of one norm, by a part in a thousand
        peer.model.layers[0].input_layernorm.weight.data[0] *= 1.001

    name, ratio = float32_excess(FAULTY, spoil)
    assert ratio > 1, name


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("model.embed_tokens", "hook_embed"),
        ("model.layers.0.input_layernorm", "blocks.0.ln1.hook_normalized"),
        ("model.layers.1.self_attn.q_proj", "blocks.1.attn.hook_q"),
        ("model.layers.1.self_attn.k_proj", "blocks.1.attn.hook_k"),
        ("model.layers.0.self_attn.v_proj", "blocks.0.attn.hook_v"),
        ("model.layers.1.self_attn.o_proj", "blocks.1.hook_attn_out"),
        ("model.layers.1.post_attention_layernorm", "blocks.1.ln2.hook_normalized"),
        ("model.layers.0.mlp.gate_proj", "blocks.0.mlp.hook_pre"),
        ("model.layers.0.mlp.up_proj", "blocks.0.mlp.hook_pre_linear"),
        ("model.layers.1.mlp.down_proj", "blocks.1.hook_mlp_out"),
        ("model.norm", "ln_final.hook_normalized"),
    ],
)
def test_the_comparison_names_a_planted_fault(at, expected):
    peer = random_peer(FAULTY)
    assert peer.config.num_hidden_layers >= 2
    assert peer.config.num_key_value_heads > 1
    ids = prompt(FAULTY)
    assert len(ids) > 2
    weights = ours(peer, "float64")
    _, activations = run_with_cache(weights, ids)
    weight = peer.get_submodule(at).weight.data
    if at == "model.embed_tokens":
        weight = weight[ids[0]]
    weight[[0, 1]] = weight[[1, 0]]
    peer = in_float64(peer, rope_frequencies(weights.config))
    _, spoilt = torch_activations(peer, ids)
    found = first_divergence(activations, spoilt, 1e-9)
    assert found is not None
    assert found.split(":")[0] == expected


def test_the_comparison_names_a_rotary_fault_in_the_attention_it_enters():
    peer, ids = random_peer(FAULTY), prompt(FAULTY)
    weights = ours(peer, "float64")
    _, activations = run_with_cache(weights, ids)
    wrong = rope_frequencies(weights.config) * np.float32(1.01)
    _, spoilt = torch_activations(in_float64(peer, wrong), ids)
    found = first_divergence(activations, spoilt, 1e-9)
    assert found is not None
    assert found.startswith("blocks.0.attn.hook_z:")


def test_the_comparison_sees_nan_and_shapes_and_refuses_to_compare_nothing():
    one = {"a": np.zeros((2, 3))}
    assert first_divergence(one, one, 0.0) is None
    assert first_divergence(one, {"a": np.full((2, 3), np.nan)}, 1e9).startswith("a: ")
    assert first_divergence(one, {"a": np.zeros((3, 2))}, 1e9).startswith("a: shape")
    with pytest.raises(ValueError, match="no activation"):
        first_divergence(one, {"b": np.zeros((2, 3))}, 1.0)


def test_float64_shrinks_the_distance_that_float32_has():
    for seed in (0, 7, 13):
        peer, ids = random_peer(seed), prompt(seed)
        single = np.asarray(minikv.forward(ours(peer, "float32"), [ids], logits="all"))
        weights = ours(peer, "float64")
        double = np.asarray(minikv.forward(weights, [ids], logits="all"))
        truth, _ = torch_activations(in_float64(peer, rope_frequencies(weights.config)), ids)
        # 29 bits separate the two significands; a thousandth leaves 19 of them for luck.
        assert rms(double - truth) < rms(single - truth) / 1000


@pytest.mark.parametrize("shard", [None, "4KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_transformers_saves_loads_with_the_same_values(dtype, shard, tmp_path):
    for seed in (3, 4):  # tied and untied
        folder, peer = tmp_path / str(seed), random_peer(seed).to(getattr(torch, dtype))
        peer.save_pretrained(folder, **({} if shard is None else {"max_shard_size": shard}))
        files = sorted(path.name for path in folder.glob("*.safetensors"))
        assert len(files) == 1 if shard is None else len(files) > 1
        model, ids = minikv.load(folder, arithmetic="float64"), prompt(seed)
        wide = in_float64(peer.float(), rope_frequencies(model.config))  # widening is exact
        truth, _ = torch_activations(wide, ids)
        assert np.abs(model.logits(ids) - truth).max() < 1e-9
        saved = {name: value.numpy() for name, value in peer.float().state_dict().items()}
        single = minikv.load(folder)
        assert_same_bits(single.weights.embed_tokens, saved["model.embed_tokens.weight"])
        o_proj = saved["model.layers.0.self_attn.o_proj.weight"]
        assert_same_bits(single.layers[0].o_proj, o_proj)

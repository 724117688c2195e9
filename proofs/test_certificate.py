"""D: the dataflow certificate holds for the decoder, refuses the unknown, catches smugglers."""

from __future__ import annotations

import dataclasses
import tomllib
from collections import Counter
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
from hypothesis import given
from planted import Fault, planted
from strategies import configs

import minikv
from minikv import decoder
from minikv.layers import no_hook
from minikv.shapes import SHAPES, shape
from minikv.verify.certificate import certify
from minikv.verify.dataflow import (
    LabelArithmetic,
    Labels,
    Namespace,
    UnknownOperation,
    follow,
    follow_blocks,
    follow_tokens,
    labelled_model,
)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.slow
def test_the_decoder_is_certified_at_its_true_depth(name):
    """Where layers slide, with a window of two: the true one is longer than the text."""
    config = dataclasses.replace(shape(name), sliding_window=2)
    certificate = certify(config)
    assert certificate.failures == ()
    assert certificate.claims > 100 * config.num_hidden_layers


@given(config=configs())
def test_the_decoder_is_certified_for_any_shape(config):
    assert certify(config, texts=[(2, 2)]).failures == ()


def test_an_operation_that_is_not_known_is_refused():
    with pytest.raises(UnknownOperation, match="'cumulative_sum'"):
        Namespace().cumulative_sum(np.zeros(3))
    config = minikv.tiny_config()

    def sneaky():
        return lambda name, value: value.tobytes() if name.endswith("hook_z") else value

    with pytest.raises(UnknownOperation, match="'tobytes'"):
        certify(config, smuggle=sneaky)


@pytest.mark.parametrize(
    "ask",
    [
        bool,
        lambda value: value[0, 0] != 0.0,
        lambda value: value[0, 0] == 0.0,
        lambda value: value > 0.0,
        lambda value: 1.0 in value,
        lambda value: np.float32(1) == value,
    ],
)
def test_control_flow_that_reads_values_is_refused(ask):
    def nosy():
        return lambda name, value: -value if ask(value) else value

    with pytest.raises(UnknownOperation, match="control flow"):
        certify(minikv.tiny_config(), smuggle=nosy)


def carry(source: str, target: str):
    """A change of architecture: add what `source` was at block 0 to `target` of later blocks."""

    def make():
        kept = {}

        def hook(name, value):
            if name == f"blocks.0.{source}":
                kept["value"] = value
            if name.endswith(target) and not name.startswith("blocks.0."):
                return value + kept["value"]
            return value

        return hook

    return make


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("attn.hook_v", "attn.hook_v"),  # value residual
        ("attn.hook_k", "attn.hook_k"),  # cross-layer keys
        ("hook_resid_pre", "hook_resid_mid"),  # DenseFormer's average of earlier layers
        ("hook_mlp_out", "hook_mlp_out"),
    ],
)
def test_state_smuggled_past_the_stream_is_caught(source, target):
    failures = certify(
        minikv.tiny_config(num_hidden_layers=3), smuggle=carry(source, target)
    ).failures
    assert any("T2" in failure for failure in failures), failures


def test_a_token_that_enters_past_the_stream_is_caught(monkeypatch):
    """Embeddings that each block adds anew: no hook sees them, but the rows taken are labelled."""
    given, block, embed = [], decoder.block, decoder.embed

    def noting(weights, ids):
        given[:] = weights, ids
        return embed(weights, ids)

    monkeypatch.setattr(decoder, "embed", noting)
    assert certify(minikv.tiny_config()).failures == ()
    monkeypatch.setattr(decoder, "block", lambda *args: block(*args) + embed(*given))
    assert any("T2" in f for f in certify(minikv.tiny_config()).failures)


@pytest.mark.parametrize(("owner", "said"), [(dataclasses, False), (decoder, True)])
def test_what_dataclasses_add_to_a_class_is_not_the_decoders(monkeypatch, owner, said):
    """Python 3.13 gives each dataclass a function of its own module, which asks for names."""
    made = FunctionType((lambda self, /, **changes: changes[self.name]).__code__, vars(owner))
    monkeypatch.setattr(decoder.Span, "__replace__", made, raising=False)
    failures = certify(minikv.tiny_config()).failures
    assert any("asks what computes: .name" in failure for failure in failures) == said


def test_an_embedding_of_two_tokens_is_caught(monkeypatch):
    embed = decoder.embed
    monkeypatch.setattr(
        decoder, "embed", lambda weights, ids: embed(weights, ids) + embed(weights, np.roll(ids, 1))
    )
    assert any("T10" in f for f in certify(minikv.tiny_config()).failures)


def test_a_mask_that_leaks_the_future_is_caught(monkeypatch):
    def leak(self, scores):  # forgets that a score of -inf weighs nothing
        return LabelArithmetic.mean_square(self, scores)

    def leaking(self, scores):
        return Labels(
            leak(self, scores).bits.repeat(scores.shape[-1], axis=-1) & ~np.uint64(1 << 63)
        )

    monkeypatch.setattr(LabelArithmetic, "softmax", leaking)
    assert any("T8" in f for f in certify(minikv.tiny_config()).failures)


# --- a smuggler for every edge of the flow --------------------------------------------------------

FILE = Path(__file__).with_name("smugglers.toml")
SMUGGLERS = tomllib.loads(FILE.read_text(encoding="utf-8"))
TYPES = ("sliding_attention", "full_attention", "sliding_attention")


def caught(entry: dict) -> list[str] | str:
    """The claims that fail, or "refused", at a shape with a window of 9 unless said."""
    layers = entry.get("layers", 3)
    window = entry.get("window", 9)
    config = minikv.tiny_config(num_hidden_layers=layers, model_type="qwen3")
    if window:
        types = TYPES[:layers]
        config = dataclasses.replace(config, layer_types=types, sliding_window=window)
    try:
        failures = certify(config).failures
    except UnknownOperation:
        return "refused"
    return sorted({failure.partition(":")[0] for failure in failures})


def smuggler(entry: dict) -> Fault:
    return Fault(entry["file"], entry["old"], entry["new"])


@pytest.mark.parametrize("entry", [{}, {"layers": 1}, {"window": 20}, {"window": 0}])
def test_without_a_smuggler_nothing_is_caught(entry):
    assert caught(entry) == []


@pytest.mark.parametrize("entry", SMUGGLERS.values(), ids=SMUGGLERS)
def test_a_smuggler_is_caught(entry):
    with planted(smuggler(entry)):
        assert caught(entry) == entry["caught"]


WEAKER = {name: entry for name, entry in SMUGGLERS.items() if "weaker" in entry}


@pytest.mark.parametrize("entry", WEAKER.values(), ids=WEAKER)
def test_it_would_get_past_a_weaker_certificate(entry):
    file, old, new = entry["weaker"]
    with planted(smuggler(entry), Fault(f"verify/{file}", old, new)):
        assert caught(entry) != entry["caught"]


@pytest.mark.parametrize("layer", range(3))
def test_a_leak_in_one_layer_alone_is_caught(layer):
    """And named: its keys and values, and no other layer's, are not functions of their row."""
    old = "k, v = layer.linears(x, layer.k_proj, layer.v_proj)"
    rows = f"x + x[-1:] if layer.index == {layer} else x"
    new = old.replace("linears(x", f"linears({rows}")
    with planted(Fault("projection.py", old, new)):
        failures = certify(minikv.tiny_config(num_hidden_layers=3)).failures
    mixed = [failure for failure in failures if failure.startswith("T1: ")]
    assert mixed
    assert all(failure.startswith(f"T1: blocks.{layer}.attn") for failure in mixed)


@pytest.mark.parametrize("labelled", [0, 1])
def test_every_row_of_streams_keys_values_and_logits_is_read_off(labelled):
    """With hooks, block by block without, and of whole calls without; of two texts."""
    config, texts = minikv.tiny_config(), ((2, 1), (1, 2))
    model = labelled_model(config, 6)
    blocks = [
        f"blocks.{layer}.{name}"
        for layer in range(labelled, 2)
        for name in ("attn.hook_rot_k", "attn.hook_v", "hook_resid_post")
    ]
    read = Counter(row.activation for row in follow_blocks(model, texts, labelled))
    assert read == dict.fromkeys([*blocks, "logits"], 6)
    assert Counter(row.activation for row in follow_tokens(model, texts)) == {"logits": 6}
    hooked = Counter(row.activation for row in follow(model, texts, labelled, no_hook))
    assert {name: hooked[name] for name in read} == read

"""Chapter 2: each check accepts its solution and explains three typical mistakes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

from exercises import e02
from solutions import s02

import minikv


def from_the_stream(activations, layers):
    names = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out")
    found = [activations[f"blocks.{i}.{name}"] for i in range(layers) for name in names]
    return [activations["hook_embed"], *found]


def without_norm(model, activations, layer):
    return activations[f"blocks.{layer}.hook_resid_pre"] @ model.weights.lm_head.T


def without_gain(model, activations, layer):
    x = activations[f"blocks.{layer}.hook_resid_pre"]
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5) @ model.weights.lm_head.T


def without_epsilon(model, activations, layer):
    x = activations[f"blocks.{layer}.hook_resid_pre"]
    length = np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
    return x / length * model.weights.norm @ model.weights.lm_head.T


def one_block_late(model, activations, layer):
    after = {f"blocks.{layer}.hook_resid_pre": activations[f"blocks.{layer}.hook_resid_post"]}
    return s02.read_at(model, after, layer)


def values_instead(rows, positions, layer):
    return minikv.kv_from_residual(rows, positions, layer)[1]


def attention_first(activations, layers):
    given = s02.parts(activations, layers)
    return [given[0], *given[1::2], *given[2::2]]


def own_length(parts, gain, u, eps):
    return np.array([s02.shares(part[None], gain, u, eps)[0] for part in parts])


def unseen(W):
    return np.linalg.svd(W)[2][-1]


MISTAKES = [
    ("parts", lambda a, n: s02.parts(a, n)[1:], "the embedding is missing"),
    ("parts", from_the_stream, "some of them are sums themselves"),
    ("parts", lambda a, n: s02.parts(a, n)[::2], "each block adds twice"),
    ("parts", attention_first, "the order in which they were added"),
    ("read_at", without_norm, "was not normalized"),
    ("read_at", without_gain, "the gain of the last norm is missing"),
    ("read_at", without_epsilon, "epsilon is missing"),
    ("read_at", one_block_late, "after the block"),
    ("keys", lambda x, at, layer: s02.keys(x, np.arange(len(x)), layer), "numbered the rows"),
    ("keys", lambda x, at, layer: s02.keys(x, 0 * at, layer), "not turned by their positions"),
    ("keys", values_instead, "these are the values"),
    ("shares", own_length, "by its own length"),
    ("shares", lambda p, g, u, eps: s02.shares(p, 0 * g + 1, u, eps), "the gain is missing"),
    ("shares", lambda p, g, u, eps: s02.shares(p, g, u, 0.0), "epsilon is missing"),
    ("twin", lambda x, g, W: 2 * x, "points another way"),
    ("twin", lambda x, g, W: x + 5 * unseen(W * g), "the length of the row changed"),
    ("twin", lambda x, g, W: s02.twin(x, 0 * g + 1, W), "multiplies by the gain"),
]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in MISTAKES}))
def test_the_solution_is_accepted(name, capsys):
    assert getattr(e02, f"check_{name}")(getattr(s02, name))
    assert capsys.readouterr().out == "Correct.\n"


@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e02, f"check_{name}")(mistake)
    told = capsys.readouterr().out
    assert told.startswith("Not yet: ")
    assert words in told

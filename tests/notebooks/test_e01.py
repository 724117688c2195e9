"""Chapter 1: each check accepts its solution and explains three typical mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

from exercises import e01
from solutions import s01


def as_multi_head(config):
    """Keys as many as queries."""
    extra = config.num_attention_heads - config.num_key_value_heads
    width = extra * config.head_dim * config.hidden_size
    return s01.parameters(config) + 2 * width * config.num_hidden_layers


def without_norms(config):
    return s01.parameters(config) - config.hidden_size * (2 * config.num_hidden_layers + 1)


def always_tied(config):
    extra = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    return s01.parameters(config) - extra


def naive_softmax(q, k, v):
    weights = np.exp(k @ q / math.sqrt(len(q)))
    return weights @ v / weights.sum()


def unscaled(q, k, v):
    return s01.one_pass(q * math.sqrt(len(q)), k, v)


def never_rescaled(q, k, v):
    largest, denominator, numerator = -math.inf, 0.0, 0.0
    for key, value in zip(k, v, strict=True):
        score = q @ key / math.sqrt(len(q))
        largest = max(largest, score)
        denominator += math.exp(score - largest)
        numerator = numerator + math.exp(score - largest) * value
    return numerator / denominator


def interleaved(keys, cos, sin):
    out = np.empty_like(keys)
    a, b = keys[..., 0::2], keys[..., 1::2]
    out[..., 0::2], out[..., 1::2] = a * cos + b * sin, b * cos - a * sin
    return out


def twice(keys, cos, sin):
    return s01.unrope(keys, cos, -sin)


def one_sign(keys, cos, sin):
    a, b = np.split(keys, 2, axis=-1)
    return np.concatenate([a * cos + b * sin, b * cos + a * sin], axis=-1)


def without_maximum(logits, ids):
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return float(-np.mean(np.log(p[np.arange(len(ids) - 1), ids[1:]])))


def shifted(logits, ids):
    return s01.surprise(np.vstack([logits, logits[:1]]), [0, *ids])


def in_bits(logits, ids):
    return s01.surprise(logits, ids) / math.log(2)


MISTAKES = [
    ("parameters", as_multi_head, "num_key_value_heads 1"),
    ("parameters", without_norms, "gains of the norms are missing"),
    ("parameters", always_tied, "output matrix besides the embedding"),
    ("share", lambda k, n: np.tile(k, (1, n // k.shape[1], 1)), "expected [0, 0, 1, 1]"),
    ("share", lambda k, n: k, "the shape is"),
    ("share", lambda k, n: np.repeat(k, n // k.shape[1], axis=0), "the shape is"),
    ("unrope", interleaved, "which numbers form a pair"),
    ("unrope", twice, "once more in the same direction"),
    ("unrope", one_sign, "its length changed"),
    ("surprise", without_maximum, "changes no probability"),
    ("surprise", shifted, "row t predicts token t + 1"),
    ("surprise", in_bits, "nats"),
    ("one_pass", naive_softmax, "overflowed"),
    ("one_pass", unscaled, "sqrt(d)"),
    ("one_pass", never_rescaled, "when a larger score comes"),
]


@pytest.mark.parametrize("name", sorted({name for name, _, _ in MISTAKES}))
def test_the_solution_is_accepted(name, capsys):
    assert getattr(e01, f"check_{name}")(getattr(s01, name))
    assert capsys.readouterr().out == "Correct.\n"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "mistake", "words"), MISTAKES)
def test_a_mistake_is_explained(name, mistake, words, capsys):
    assert not getattr(e01, f"check_{name}")(mistake)
    told = capsys.readouterr().out
    assert told.startswith("Not yet: ")
    assert words in told

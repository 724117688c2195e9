"""Patching all rows gives the donor's bits, and the last row alone does not."""

from __future__ import annotations

import numpy as np
import pytest
from bits import same_bits

import minikv
from minikv.errors import InputError
from minikv.paper.claim import Verdict
from minikv.paper.claims.figure_8 import ANSWER, Exchange, told_of


@pytest.fixture(scope="module")
def exchange(tiny):
    model = minikv.load(tiny, "exact")
    rng = np.random.default_rng(0)
    return Exchange(model, *(rng.integers(0, 300, 12).tolist() for _ in range(2)))


def test_all_rows_at_any_layer_give_the_donors_bits_and_the_last_alone_does_not(exchange):
    for layer in range(exchange.model.config.num_hidden_layers):
        every = exchange.patched(layer, exchange.every_row)
        alone = exchange.patched(layer, exchange.last_row)
        assert same_bits(every, exchange.donor_logits)
        assert exchange.divergence(every) == 0.0
        assert not same_bits(alone, exchange.donor_logits)
        assert exchange.divergence(alone) > 0


def test_what_follows_is_the_donors_only_when_the_first_stream_is_patched(exchange):
    """A later token reads keys and values of blocks before the one that was patched."""
    model = exchange.model
    donor = model.new_cache()
    model.forward([exchange.donor], [donor])
    expected = model.forward([[7]], [donor])
    for layer in range(model.config.num_hidden_layers):
        cache = model.new_cache()
        exchange.patched(layer, exchange.every_row, cache)
        assert same_bits(model.forward([[7]], [cache]), expected) == (layer == 0)


def test_prompts_of_two_lengths_are_refused():
    model = minikv.random_model(minikv.tiny_config(), seed=0)
    with pytest.raises(InputError, match="the donor has 2 tokens and the recipient 3"):
        Exchange(model, [1, 2], [1, 2, 3])


def figures(**changes) -> dict:
    given = {
        "layers": [0, 1],
        "bits_equal": [True, True],
        "all_rows": [0.0, 0.0],
        "last_row": [0.5, 0.25],
        "answers": [ANSWER, ANSWER],
        "answers_last_row": ["no", "no"],
    }
    return given | changes


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.REPRODUCED),
        ({"answers": [ANSWER, "Sydney"]}, Verdict.ONE_READING),
        ({"bits_equal": [True, False]}, Verdict.REFUTED),
        ({"all_rows": [0.0, 1e-9]}, Verdict.REFUTED),
    ],
)
def test_the_verdict_follows_the_figures(changes, verdict):
    assert told_of(figures(**changes)).verdict is verdict

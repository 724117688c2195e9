"""minikv.atlas.known_bounds: what is known without the exact run is never less than the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minikv
from minikv.atlas.known_bounds import (
    Behind,
    by_intervals,
    by_norms,
    knowing_nothing,
    last_block,
    longest,
    lossy_run,
    unit_intervals,
    unit_norm,
)
from minikv.atlas.margins import off_in_pairs
from minikv.errors import InputError
from minikv.verify.bits import same_bits

BOUNDS = (by_norms, by_intervals)


def runs(seed: int, bits: int, scale: float, width: int = 4, groups: int = 1):
    """A random model's weights, its lossy tokens, and the exact logits, in float64."""
    config = minikv.tiny_config(
        vocab_size=11,
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=2 * groups,
        num_key_value_heads=groups,
        head_dim=4,
        tie_word_embeddings=False,
    )
    model = minikv.random_model(config, seed, "float64", scale)
    ids = np.random.default_rng(seed).integers(0, 11, 7).tolist()
    return Behind.of(model), lossy_run(model, ids, bits), np.asarray(model.logits(ids))


def share(bound, weights, tokens, exact) -> float:
    """How much of a bound the leads move, at most."""
    return max(
        float((off_in_pairs(token.logits, wanted) / (bound(weights, token) + 1e-300)).max())
        for token, wanted in zip(tokens, exact, strict=True)
    )


@pytest.mark.parametrize("bound", BOUNDS)
@settings(max_examples=25)
@given(
    st.integers(0, 2**20),
    st.sampled_from((1, 2, 4, 8, 15)),
    st.sampled_from((0.3, 1.0, 3.0, 30.0)),
    st.sampled_from((1, 2, 4, 24)),
    st.sampled_from((1, 2)),
)
def test_no_lead_moves_further_than_its_bound(bound, seed, bits, scale, width, groups):
    assert share(bound, *runs(seed, bits, scale, width, groups)) <= 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_lead_of_a_narrow_model_moves_by_nine_tenths_of_its_bound(bound):
    assert 0.9 < share(bound, *runs(32, 2, 1.0, width=2)) <= 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_is_exceeded_without_the_error_of_values_or_without_the_mlp(bound):
    """The controls: one term less is no bound."""
    cases = [runs(seed, 2, 30.0) for seed in range(8)]
    assert max(share(bound, *case) for case in cases) <= 1
    for weights, tokens, exact in cases:
        sure = [replace(token, value_error=np.zeros(1)) for token in tokens]
        assert share(bound, weights, sure, exact) > 1
    without = [(replace(weights, down=0 * weights.down), *rest) for weights, *rest in cases]
    assert max(share(bound, *case) for case in without) > 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_that_knows_nothing_is_the_largest(bound):
    for seed in range(8):
        weights, tokens, _ = runs(seed, 2, 3.0)
        for token in tokens:
            largest = bound(weights, knowing_nothing(token))
            assert (bound(weights, token) <= largest).all()
            assert np.isfinite(largest).all()


def test_directions_are_off_by_no_more_than_their_bounds():
    rng = np.random.default_rng(0)
    for size in (0.01, 0.3, 1.0, 1.9, 5.0):
        for _ in range(50):
            row = rng.normal(size=5)
            other = row + rng.normal(size=5) * size
            epsilon = float(rng.choice([1e-3, 1.0]))
            off = np.abs(other - row)
            moved = other / np.sqrt(other @ other + epsilon) - row / np.sqrt(row @ row + epsilon)
            assert (np.abs(moved) <= unit_intervals(row, off, epsilon) * (1 + 2**-40)).all()
            norm = float(np.linalg.norm(off))
            assert np.linalg.norm(moved) <= unit_norm(row, norm, epsilon) * (1 + 2**-40)


def test_the_norm_of_a_matrix_is_no_more_than_its_bound_and_little_less():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 20), (40, 7)):
        matrix = rng.normal(size=shape)
        norm = np.linalg.norm(matrix, 2)
        assert norm <= longest(matrix) <= norm * min(shape) ** (1 / 32) * (1 + 2**-20)
    assert longest(np.zeros((2, 3))) == 0


def test_the_last_block_alone_is_rounded():
    model = minikv.random_model(minikv.tiny_config(), 1, "float64")
    streams = []
    for memory in (model.new_cache("full"), last_block(model, 4)):
        seen = {}
        model.forward([[3, 1, 4]], [memory], "all", seen.setdefault)
        streams.append((seen["blocks.1.hook_resid_pre"], seen["blocks.1.attn.hook_z"]))
    (below, above), (lossy_below, lossy_above) = streams
    assert same_bits(below, lossy_below)
    assert not same_bits(above, lossy_above)


def test_another_family_is_refused():
    model = minikv.random_model(minikv.tiny_config(model_type="gemma3_text"))
    with pytest.raises(InputError, match="gemma3_text"):
        Behind.of(model)

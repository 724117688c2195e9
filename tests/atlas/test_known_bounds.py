"""minikv.atlas.known_bounds: what is known without the exact run is never less than the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bits import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import minikv
from minikv.atlas.known_bounds import (
    Behind,
    Token,
    by_intervals,
    by_norms,
    head_intervals,
    head_norm,
    knowing_nothing,
    last_block,
    longest,
    lossy_run,
    moved_product,
    off_at_most,
    unit_intervals,
    unit_norm,
)
from minikv.atlas.margins import off_in_pairs
from minikv.atlas.quantising import rounded, softmax
from minikv.build import build, random_tensors
from minikv.errors import InputError
from minikv.model import Model
from minikv.verify.bits import same_bits

BOUNDS = (by_norms, by_intervals)
UNITS = 24  # of an MLP, at most


def random_one(seed: int, scale: float, width: int, groups: int, units: int) -> Model:
    """A random model whose MLPs have so many units that are not 0."""
    config = minikv.tiny_config(
        vocab_size=11,
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=2 * groups,
        num_key_value_heads=groups,
        head_dim=4,
        tie_word_embeddings=False,
    )
    tensors = random_tensors(config, seed, scale)
    for name in ("gate_proj", "up_proj"):
        tensors[f"model.layers.1.mlp.{name}.weight"][units:] = 0
    return Model(build(config, tensors, "float64"))


def runs(seed: int, bits: int, scale: float, width: int = 4, groups: int = 1, units: int = UNITS):
    """A random model's weights, its lossy tokens, and the exact logits."""
    model = random_one(seed, scale, width, groups, units)
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
    st.sampled_from((0, 1, UNITS)),
)
def test_no_lead_moves_further_than_its_bound(bound, seed, bits, scale, width, groups, units):
    assert share(bound, *runs(seed, bits, scale, width, groups, units)) <= 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_without_an_mlp_the_stream_alone_moves_the_leads(bound):
    """A bound that leaves the residual's own move out would be 0 here."""
    weights, tokens, exact = runs(0, 4, 1.0, units=0)
    assert not weights.gate.any()
    assert 0 < share(bound, weights, tokens, exact) <= 1


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


def test_a_head_moves_by_just_its_bound_where_all_moves_agree():
    """Two keys whose scores change places, and values that are all off by the same."""
    delta = 0.7
    eta = 0.25
    token = Token(
        q=np.array([[2.0, -1.5]]),
        key_error=np.array([delta / 3.5]),
        values=np.array([[[1.0, 1.0]], [[-1.0, -1.0]]]),
        value_error=np.array([eta]),
        **dict.fromkeys(("mid", "gate", "up", "post", "logits"), np.zeros(1)),
    )
    ((shift, values, off),) = token.heads()
    lossy = softmax(np.array([-delta, delta]) / 2) @ values
    exact = softmax(np.array([delta, -delta]) / 2) @ (values + eta)
    slack = 2.0**-40
    moved = np.abs(exact - lossy)
    assert head_intervals(shift, values, off) == pytest.approx(moved, rel=slack)
    assert head_norm(shift, values, off) == pytest.approx(np.linalg.norm(moved), rel=slack)


def test_norms_take_the_largest_of_what_stands_beside_the_moves():
    weights, tokens, _ = runs(1, 15, 0.3)
    token = tokens[-1]
    largest_up = np.full_like(token.up, np.abs(token.up).max())
    largest_gate = np.full_like(token.gate, token.gate[token.silu.argmax()])
    evened = replace(token, up=largest_up, gate=largest_gate)
    assert len(set(token.up)) > 1
    assert len(set(token.silu)) > 1
    assert_same_bits(by_norms(weights, evened), by_norms(weights, token))
    assert (by_intervals(weights, evened) > by_intervals(weights, token)).any()


def test_a_token_knows_how_far_the_rows_up_to_it_are_off():
    model = random_one(5, 1.0, width=24, groups=2, units=UNITS)
    ids = [3, 1, 4, 1, 5, 9, 2]
    _, seen = model.run_with_cache(ids)
    tokens = lossy_run(model, ids, 4)
    for name in ("hook_rot_k", "hook_v"):
        rows = np.asarray(seen[f"blocks.1.attn.{name}"])
        off = np.abs(rounded(rows, 4)[0] - rows)
        for count, token in enumerate(tokens, start=1):
            most = {"hook_rot_k": token.key_error, "hook_v": token.value_error}[name]
            assert (off[:count].max(axis=(0, 2)) <= most).all()
            assert (most <= 4 * off[:count].max(axis=(0, 2))).all()
            if name == "hook_v":
                assert [eta for _, _, eta in token.heads()] == most.repeat(2).tolist()


def test_a_product_moves_by_no_more_than_its_bound_and_by_much_of_it():
    rng = np.random.default_rng(0)
    gate, moved_gate, up, moved_up = rng.normal(size=(4, 20_000)) * 2
    moved = np.abs(silu(gate) * up - silu(moved_gate) * moved_up)
    move_of_gate = np.abs(gate - moved_gate)
    move_of_up = np.abs(up - moved_up)
    most = moved_product(move_of_gate, move_of_up, np.abs(up), np.abs(silu(gate)))
    assert 0.9 < (moved / most).max() <= 1


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def test_stored_rows_are_off_by_no_more_than_is_said_and_nearly_by_that():
    rows = np.random.default_rng(0).normal(size=(40, 2, 40))
    back, step = rounded(rows, 4)
    off = np.abs(back - rows).max(axis=(0, 2))
    most = off_at_most(back, step)
    assert (off <= most).all()
    assert (off > 0.7 * most).all()


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

"""What the claims about cached and recomputed K and V measure, on models that are made here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.config import FULL, SLIDING
from minikv.experiments import score
from minikv.experiments.score import log_likelihoods
from minikv.paper.claims import algorithm_1, section_3_2, table_2
from minikv.paper.claims.table_1 import printed_as
from minikv.paper.claims.table_3 import compared, timed
from minikv.paper.recomputed import (
    ARITHMETICS,
    FIXED_ORDER,
    AccumulatedBfloat16,
    Filled,
    difference,
    filled,
    first,
    projected,
)

IDS = list(range(3, 15))
CONFIG = minikv.tiny_config(hidden_size=96, num_hidden_layers=3)
WINDOW = 5
GEMMA = minikv.tiny_config(
    num_hidden_layers=4,
    model_type="gemma3_text",
    layer_types=(SLIDING, SLIDING, FULL, SLIDING),
    sliding_window=WINDOW,
    rope_local_base_freq=50.0,
)


def model_in(name: str, config=CONFIG) -> minikv.Model:
    return minikv.random_model(config, 0, ARITHMETICS[name])


@pytest.mark.parametrize("name", ARITHMETICS)
def test_the_same_calls_give_the_same_bits_in_every_arithmetic(name):
    model = model_in(name)
    held = filled(model, IDS, [len(IDS)])
    assert difference(held, projected(model, held.streams)).numbers == 0


@pytest.mark.parametrize("name", FIXED_ORDER)
def test_a_decoded_cache_has_the_bits_of_one_run_where_the_order_is_fixed(name):
    model = model_in(name)
    decoded = filled(model, IDS, [1] * len(IDS))
    assert difference(decoded, projected(model, decoded.streams)).numbers == 0
    assert difference(decoded, filled(model, IDS, [5, 7])).numbers == 0


def test_other_texts_and_one_changed_bit_are_found():
    model = model_in("exact")
    held = filled(model, IDS, [len(IDS)])
    other = filled(model, [*IDS[:-1], 1], [len(IDS)])
    assert difference(held, other).k_layers == 3
    before = len(IDS) - 1  # all but the token that differs
    assert difference(first(held, before), first(other, before)).numbers == 0
    keys = [np.array(key) for key in held.keys]
    keys[1][2, 0, 3] = np.nextafter(keys[1][2, 0, 3], np.float32(9))
    found = difference(held, Filled(held.streams, keys, held.values))
    assert (found.k_layers, found.v_layers, found.numbers, found.v) == (1, 0, 1, 0.0)
    assert found.k is not None
    assert 0 < found.k < 1e-6
    keys[1][2, 0, 3] = math.nan
    assert difference(held, Filled(held.streams, keys, held.values)).k is None


def test_a_matrix_unit_rounds_a_product_once():
    rng = np.random.default_rng(0)
    unit = AccumulatedBfloat16()
    x, w = (np.asarray(unit.numbers.of(rng.normal(size=shape))) for shape in ((4, 300), (5, 300)))
    got = np.asarray(unit.linear(x, unit.weight(w, "w")))
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    # Half of bfloat16's last place, of the sum, and what 300 additions in float32 may be off
    bound = np.abs(exact) * 2.0**-8 + 301 * 2.0**-24 * (np.abs(x) @ np.abs(w).T)
    assert (np.abs(got - exact) <= bound).all()
    by_steps = np.asarray(minikv.arithmetic.Bfloat16().linear(x, unit.weight(w, "w")))
    assert (by_steps != got).any()


def test_a_row_of_table_2_tells_the_readings_apart():
    short, row = table_2.Compared("toy", "exact", model_in("exact")).rows("story", IDS, [4, 6])
    assert (short["tokens"], row["tokens"]) == (4, 6)
    assert short["sha256"] != row["sha256"]
    assert {row[reading]["numbers"] for reading in table_2.READINGS} == {0}
    told = {"numbers": 2, "k": 0.5, "v": None, "k_layers": 1, "v_layers": 3}
    assert table_2._told(told) == "0.5, not finite (1 and 3 layers)"


# Sliding windows


@pytest.fixture(scope="module")
def gemma() -> minikv.Model:
    return model_in("exact", GEMMA)


def effects(gemma, mistake: int, tokens: int):
    """Layers in which K and V made again differ, and whether the run without a cache does."""
    chosen = section_3_2.mistakes(gemma)[mistake]
    ids = IDS[:tokens]
    held = filled(gemma, ids, [tokens])
    found = difference(held, section_3_2.made_again(gemma, chosen, held.streams))
    right = gemma.logits(ids)
    other = section_3_2.cache_free(gemma, chosen, ids)
    return found.k_layers, found.v_layers, not np.array_equal(right, other)


@pytest.mark.parametrize("tokens", [WINDOW, len(IDS)])
def test_without_a_mistake_nothing_differs(gemma, tokens):
    assert effects(gemma, 0, tokens) == (0, 0, False)


@pytest.mark.parametrize("mistake", [1, 2])
@pytest.mark.parametrize("tokens", [WINDOW, len(IDS)])
def test_the_global_base_changes_keys_of_sliding_layers_alone_and_the_run(gemma, mistake, tokens):
    assert effects(gemma, mistake, tokens) == (3, 0, True)


@pytest.mark.parametrize("mistake", [3, 4])
def test_a_window_changes_nothing_in_a_text_that_is_no_longer_than_it(gemma, mistake):
    assert effects(gemma, mistake, WINDOW) == (0, 0, False)


def test_no_window_changes_the_run_of_a_longer_text_and_no_key_made_again(gemma):
    assert effects(gemma, 3, len(IDS)) == (0, 0, True)


def test_positions_from_the_windows_start_change_keys_of_a_longer_text(gemma):
    assert effects(gemma, 4, len(IDS)) == (3, 0, True)


def test_likelihoods_and_divergence_do_not_depend_on_how_many_rows_are_taken(gemma, monkeypatch):
    logits = gemma.logits(IDS)
    other = logits[::-1]
    likelihoods = log_likelihoods(logits[:-1], IDS[1:])
    divergence = section_3_2.mean_divergence(logits, other)
    monkeypatch.setattr(score, "ROWS", 4)
    monkeypatch.setattr(section_3_2, "ROWS", 4)
    assert_same_bits(log_likelihoods(logits[:-1], IDS[1:]), likelihoods)
    assert section_3_2.mean_divergence(logits, other) == divergence


# The others


def test_tokens_and_bits_are_equal_with_a_cache_and_with_none():
    found = compared(model_in("exact"), IDS, 6)
    assert (found["equal"], found["other_logits"], found["farthest"]) == (6, 0, 0.0)
    assert len(found["ids"]) == 6


def test_times_are_ratios_of_the_same_round():
    found = timed(model_in("float32"), IDS, 3, 2)
    assert len(found["ratios"]) == len(found["seconds"]["full"]) == 2
    assert found["ratios"] == sorted(found["ratios"])


def test_one_vector_gives_k_and_v_of_its_own_layer_by_a_projection_and_of_no_other():
    model = model_in("exact")
    every, one = (algorithm_1.measured(model, IDS, kept) for kept in ("every", "embedding"))
    assert (every["projected"]["numbers"], one["projected"]["k_layers"]) == (0, 2)
    assert every["same_logits"]
    assert one["same_logits"]
    assert every["bytes"] - one["bytes"] == 2 * (len(IDS) + algorithm_1.NEW - 1) * 96 * 4


def test_multiply_adds_are_those_of_the_matrices():
    config = minikv.tiny_config(hidden_size=96)
    work = algorithm_1.multiply_adds(config)
    kv = 2 * 12 * 96
    block = kv + 2 * 24 * 96 + 3 * 40 * 96
    assert work == {"projection": 2 * kv, "replay": block + kv}


def test_what_is_printed_is_compared_digit_by_digit():
    assert printed_as(1.125, "1.1")
    assert not printed_as(1.16, "1.1")
    assert printed_as(112.0, "112")


def test_exact_and_float64_agree_to_the_accuracy_of_the_first():
    """The control of the readings: another arithmetic has other bits, close by."""
    exact, double = (filled(model_in(name), IDS, [len(IDS)]) for name in ("exact", "float64"))
    for ours, theirs in zip(exact.keys, double.keys, strict=True):
        assert ours.dtype != theirs.dtype
    assert_same_bits(exact.streams[0], double.streams[0].astype(np.float32))

"""Random cases: which shapes and texts are drawn, and how models are cut over ranks."""

from __future__ import annotations

import dataclasses

import minikv
from minikv.config import FAMILIES, FULL, SLIDING
from minikv.verify import random_case
from minikv.verify.cases import CONTEXT, Seeded, draw_config
from minikv.verify.theorems.t12_split import (
    MOST_RANKS,
    calls,
    cut_anywhere,
    random_shares,
    ranks_of,
)

CONFIGS = [draw_config(Seeded(seed)) for seed in range(400)]


def test_every_family_kind_of_sharing_and_scaling_is_drawn():
    assert {config.model_type for config in CONFIGS} == set(FAMILIES)
    assert {config.num_hidden_layers for config in CONFIGS} == {1, 2, 3, 4}
    assert {config.tie_word_embeddings for config in CONFIGS} == {False, True}
    groups = [(one.num_key_value_heads, one.num_attention_heads) for one in CONFIGS]
    assert any(kv == heads > 1 for kv, heads in groups)  # MHA
    assert any(1 < kv < heads for kv, heads in groups)  # GQA
    assert any(kv == 1 < heads for kv, heads in groups)  # MQA
    assert {config.hidden_size % 2 for config in CONFIGS} == {0, 1}
    scalings = [config.rope_scaling for config in CONFIGS]
    assert {one and bool(one.low_freq_factor) for one in scalings} == {None, False, True}
    assert {config.rope_local_base_freq for config in CONFIGS} == {None, 1e2}
    assert {config.slides for config in CONFIGS} == {False, True}


def test_where_windows_are_asked_for_a_layer_slides():
    windowed = [draw_config(Seeded(seed), windowed=True) for seed in range(60)]
    assert all(SLIDING in config.layer_types for config in windowed)
    assert any(FULL in config.layer_types for config in windowed)


def test_a_text_is_fed_at_once_in_a_few_calls_or_token_by_token():
    chunks = [random_case(seed).chunks for seed in range(200)]
    assert any(len(counts) == 1 < counts[0] for counts in chunks)
    assert any(len(counts) > 1 and min(counts) > 1 for counts in chunks)
    assert any(set(counts[len(counts) // 2 :]) == {1} and len(counts) > 5 for counts in chunks)
    assert any(sum(counts) == CONTEXT for counts in chunks)
    assert all(random_case(seed).ids != random_case(seed).other for seed in range(200))


def test_the_last_few_models_are_kept():
    case = random_case(7)
    assert case.model is case.model
    assert case.model is dataclasses.replace(case, ids=(0,), other=(1,), chunks=(1,)).model
    assert case.model is not dataclasses.replace(case, seed=case.seed + 1).model


def test_two_to_four_ranks_are_cut_anywhere():
    case = random_case(3)
    config = minikv.tiny_config(num_attention_heads=6, num_key_value_heads=2)
    found = set()
    uneven = between = False
    rng = case.rng
    for _ in range(200):
        size = ranks_of(config, rng)
        found.add(size)
        shares = random_shares(config, size, rng)
        heads = [share.heads for share in shares]
        assert [head for part in heads for head in part] == list(range(6))
        uneven = uneven or max(map(len, heads)) - min(map(len, heads)) > 1
        between = between or any(part.start % 3 for part in heads)
    assert found == set(range(2, MOST_RANKS + 1))
    assert uneven
    assert between
    assert ranks_of(minikv.tiny_config(num_attention_heads=1, num_key_value_heads=1), rng) == 1
    for size in range(1, 8):
        parts = cut_anywhere(7, size, rng)
        assert len(parts) == size
        assert all(map(len, parts))


def test_both_texts_come_in_the_same_calls_the_other_in_reverse():
    case = next(one for one in map(random_case, range(99)) if len(set(one.chunks)) > 1)
    given = list(calls(case))
    assert tuple(token for new, _ in given for token in new) == case.ids
    assert tuple(token for _, new in given for token in new) == case.other
    assert [len(new) for new, _ in given] == [len(new) for _, new in given][::-1]

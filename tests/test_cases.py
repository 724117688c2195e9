"""Random cases: which shapes and texts are drawn, and how models are cut over ranks."""

from __future__ import annotations

import dataclasses

import minikv
from minikv.config import FAMILIES, FULL, SLIDING, RopeScaling
from minikv.verify import THEOREMS, random_case
from minikv.verify.cases import CONTEXT, SCALES, Seeded, draw_config
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


def test_which_numbers_are_drawn():
    """One that is not drawn any more is checked by no theorem, in any run."""

    def ends(numbers):
        return min(numbers), max(numbers)

    groups = [config.num_key_value_heads for config in CONFIGS]
    shares = [config.num_attention_heads // config.num_key_value_heads for config in CONFIGS]
    assert set(groups) == set(shares) == {1, 2, 3}
    assert ends([config.vocab_size for config in CONFIGS]) == (5, 61)
    assert ends([config.hidden_size for config in CONFIGS]) == (1, 41)
    assert ends([config.intermediate_size for config in CONFIGS]) == (1, 53)
    assert {config.head_dim for config in CONFIGS} == {2, 4, 6, 10, 16, 64}
    assert {config.max_position_embeddings for config in CONFIGS} == {24}
    assert {config.rms_norm_eps for config in CONFIGS} == {1e-6, 1e-5, 1e-2}
    assert {config.rope_theta for config in CONFIGS} == {2.0, 1e4, 1e6}
    scalings = (None, RopeScaling(8.0), RopeScaling(4.0, 1.0, 4.0, 6))
    assert {config.rope_scaling for config in CONFIGS} == {*scalings}
    assert {config.query_pre_attn_scalar for config in CONFIGS} == {None, 3.0}
    assert {config.sliding_window for config in CONFIGS} >= {*range(1, 9)}
    assert {*SCALES} == {1.0, 0.0, 0.01, 3.0, 30.0}
    cases = [random_case(seed) for seed in range(300)]
    assert {case.scale for case in cases} == {*SCALES}
    assert ends([len(case.ids) for case in cases]) == (1, CONTEXT)


def test_a_size_bounds_all_that_is_drawn_and_a_scale_is_taken():
    cases = [random_case(seed, size=0.25, scale=2.0) for seed in range(60)]
    assert {case.scale for case in cases} == {2.0}
    assert max(len(case.ids) for case in cases) == CONTEXT // 4
    assert max(case.source.hidden_size for case in cases) == 10


def test_a_theorem_shows_no_long_text_of_itself_and_no_function():
    shown = repr(THEOREMS["T1"])
    assert shown.startswith("Theorem(id='T1', name='projection', ")
    for name in ("text", "formula", "remark", "check", "control", "weaker"):
        assert f" {name}=" not in shown


def test_steps_are_told_one_by_one():
    told = []
    case = dataclasses.replace(random_case(7), progress=lambda *step: told.append(step))
    assert list(case.steps("abc")) == ["a", "b", "c"]
    assert told == [("", 0, 3), ("", 1, 3), ("", 2, 3)]


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

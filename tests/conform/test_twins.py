"""With a twin everything is decided; without one, what cannot be decided is undecided."""

from __future__ import annotations

import numpy as np
import pytest

from minikv.conform import Word, conform
from tests.conform.evidence import GOOD, clean_shape, judge
from tests.conform.zoo import decoder

SMALL = ["kv_bfloat16", "narrow_values", "narrow_values_uncached", "own_row_hidden", "merge_pos"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", SMALL)
def test_float32_faults_are_found_with_the_twin_and_never_called_good_above_the_sight(fault):
    found = judge("llama-numpy", fault, "float32", 1)
    assert found.with_twin
    assert found.blind == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["pos_plus1", "kv_int8", "narrow_values", "window_minus1"])
def test_faults_in_16_bits_are_found_with_the_twin(fault):
    name = "evict-numpy" if fault.startswith("window") else "gpt-numpy"
    found = judge(name, fault, "float16", 1)
    assert found.with_twin
    assert found.blind == []


def test_without_a_twin_a_fault_in_bfloat16_is_undecided_with_what_would_decide_it():
    made = decoder("llama-numpy", dtype="bfloat16", faults=("kv_int8",))
    report = conform(made, axes=["cached"], twin="none")
    assert report["cached"].word is Word.UNDECIDED
    assert "wide()" in report["cached"].decide
    assert report.exit_code == 2


def test_exact_relations_need_no_twin_in_16_bits():
    made = decoder("llama-numpy", dtype="bfloat16", faults=("chunk_offset",))
    report = conform(made, axes=["cached-causality"], twin="none", shrink=False, kinds=False)
    assert report["cached-causality"].word is Word.BUG


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_bit_in_one_row_is_a_leak_in_every_dtype_and_without_a_twin(dtype):
    made = decoder("llama-numpy", dtype=dtype)
    clean = made.logits

    def logits(ids):
        rows = np.array(clean(ids))
        if ids[-1] % 2:
            rows[0, 0] = np.nextafter(rows[0, 0], np.float32(np.inf))
        return rows

    made.logits = logits
    reports = [
        conform(made, axes=["causality"], seed=seed, twin="none", shrink=False, kinds=False)
        for seed in range(3)
    ]
    assert any(report["causality"].word is Word.BUG for report in reports)


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["wide", "noise", "none"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_few_clean_models_raise_no_alarm(dtype, twin):
    for seed in range(2):
        name, shape = clean_shape(seed + 2)
        made = decoder(name, seed, dtype, **shape)
        report = conform(made, seed=seed, twin=twin, length=40, effort="quick")
        assert report.bugs == [], report


def test_a_twin_that_is_not_finite_is_a_bug_of_the_float64_path():
    made = decoder("llama-numpy")
    twin = made.wide()
    good = twin.step

    def step(ids, cache):
        return good(ids, cache) * (np.nan if len(ids) == 1 else 1.0)

    twin.step = step
    made.wide = lambda: twin
    report = conform(made, axes=["cached"], shrink=False, kinds=False)
    assert report["float64"].word is Word.BUG
    assert report["cached"].word in GOOD
    assert "not finite in float64" in report["float64"].evidence


def test_a_setting_that_is_not_known_is_named():
    for wrong in ({"twin": "both"}, {"effort": "slow"}, {"axes": ["cach"]}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values()))).strip("[]'")):
            conform(decoder("gpt-numpy"), **wrong)

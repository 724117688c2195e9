"""Each axis finds a fault that it is there for, with the twin; and nothing in a clean decoder."""

from __future__ import annotations

import numpy as np
import pytest

from minikv.conform import Word, conform
from minikv.conform.axes import AXES
from tests.conform.faults import FAULTS, faults_of
from tests.conform.zoo import SHAPES, decoder

# The axis, a decoder, and a fault that this axis must find.
FINDS = [
    ("same-call", "gpt-numpy", "nondet"),
    ("same-call", "gpt-numpy", "stateful"),
    ("causality", "llama-numpy", "future_uncached"),
    ("length", "llama-numpy", "mod32_uncached"),
    ("cached", "llama-numpy", "pos_plus1"),
    ("cached", "window-torch", "window_plus1"),
    ("cached", "evict-numpy", "pos_kept"),
    ("cached", "paged-numpy", "page_order"),
    ("cached", "llama-numpy", "narrow_softmax"),
    ("cached-causality", "llama-numpy", "chunk_open"),
    ("after-stop", "llama-numpy", "stop_stale"),
    ("after-stop", "gpt-torch", "stale_global"),
    ("truncate", "llama-numpy", "trunc_off1"),
    ("truncate", "gpt-numpy", "trunc_pos"),
    ("fork", "paged-numpy", "page_shared"),
    ("warm-prefix", "llama-numpy", "prefix_stale"),
    ("warm-prefix", "llama-numpy", "prefix_off1"),
    ("last-position", "gpt-numpy", "pos_wrap"),
    ("left-padding", "gpt-numpy", "pad_pos"),
    ("left-padding", "llama-numpy", "pad_seen"),
    ("left-padding", "llama-numpy", "norm_batch"),
    ("left-padding-cached", "llama-numpy", "merge_pos"),
    ("right-padding", "llama-numpy", "pad_seen_right"),
    ("batch-order", "llama-numpy", "batch_order"),
    ("window", "evict-numpy", "window_both"),
    ("budget", "llama-numpy", "budget_0_all"),
    ("budget", "llama-numpy", "budget_0_empty"),
    ("budget", "llama-numpy", "budget_full_drops"),
    ("eviction-positions", "gpt-numpy", "budget_pos_kept"),
    ("positions", "llama-numpy", "budget_pos_kept"),
    ("positions", "llama-numpy", "pos_minus1"),
    ("activations", "llama-numpy", "future_both"),
    ("projection", "llama-numpy", "value_residual"),
    ("projection", "gpt-numpy", "keys_of_layer_0"),
    ("stream", "llama-numpy", "value_residual"),
    ("second", "llama-numpy", "scale_both"),
    ("second", "llama-numpy", "base_both"),
]


# One of each kind runs each time; the others when slow tests do.
FAST = {"nondet", "future_uncached", "chunk_open", "trunc_off1", "page_shared", "window_both"}
FAST |= {"prefix_stale", "pad_seen_right", "budget_0_all", "value_residual", "base_both"}


def marked(case):
    return case if case[2] in FAST else pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(("axis", "name", "fault"), [*map(marked, FINDS)])
def test_axis_finds_its_fault(axis, name, fault):
    made = decoder(name, faults=(fault,))
    effort = "quick" if fault in FAST else "default"
    length = 40 if fault in FAST else 70
    report = conform(made, axes=[axis], shrink=False, kinds=False, length=length, effort=effort)
    assert report[axis].word is Word.BUG, report
    assert report.exit_code == 1


def test_every_axis_but_the_control_has_a_fault_that_it_finds():
    assert {axis for axis, _, _ in FINDS} | {"single-row"} == set(AXES)


def test_the_control_fails_where_one_row_is_all_that_logits_depend_on():
    class Bigram:
        """Logits of a token alone; its stream is the token."""

        table = np.random.default_rng(0).normal(size=(9, 9))

        def logits(self, ids):
            return self.table[list(ids)]

        def run_with_cache(self, ids):
            return self.logits(ids), {"blocks.0.hook_resid_pre": np.eye(9)[list(ids)]}

        def run_with_hooks(self, ids, hooks):
            stream = np.eye(9)[list(ids)]
            for name, hook in hooks.items():
                stream = hook(stream, name)
            return stream @ self.table

    report = conform(Bigram(), axes=["stream", "single-row"])
    assert report["stream"].word is Word.SAME
    assert report["single-row"].word is Word.BUG


@pytest.mark.parametrize(
    "name",
    [n if n == "llama-numpy" else pytest.param(n, marks=pytest.mark.slow) for n in SHAPES],
)
def test_a_clean_decoder_passes_every_axis_that_it_has(name):
    report = conform(decoder(name, seed=7), effort="quick")
    assert report.exit_code == 0, report
    tested = {one.axis for one in report.verdicts if one.word is not Word.NOT_TESTED}
    assert len(tested) >= 18


@pytest.mark.parametrize(
    "name", ["gpt-numpy", *(pytest.param(n, marks=pytest.mark.slow) for n in ("evict-numpy",))]
)
@pytest.mark.parametrize("length", [2, 3, 5])
def test_texts_of_a_few_tokens_raise_no_alarm(name, length):
    report = conform(decoder(name, seed=3), effort="quick", length=length)
    assert report.bugs == [], report


@pytest.mark.parametrize(("error", "word"), [(ValueError, Word.NOT_TESTED), (IndexError, Word.BUG)])
def test_a_policy_that_refuses_every_budget_has_not_been_tested_and_one_that_crashes_is_wrong(
    error, word
):
    made = decoder("llama-numpy")
    clean = made.new_cache

    def new_cache(policy="full", budget=None):
        if budget is not None:
            raise error("nothing may be dropped")
        return clean()

    made.new_cache = new_cache
    found = conform(made, axes=["budget"], effort="quick")["budget"]
    assert found.word is word
    assert f"refuses 24 ({error.__name__})" in found.evidence


def test_numbers_that_are_not_finite_are_called_that():
    made = decoder("gpt-numpy")
    clean = made.logits
    made.logits = lambda ids: clean(ids) * np.nan
    found = conform(made, axes=["causality"], effort="quick")
    assert str(found["same-call"].kind) == "numbers that are not finite (a guess)"
    assert "not finite" in found["causality"].evidence


def test_the_zoo_is_as_large_as_it_says_and_has_the_reported_causes():
    assert len(SHAPES) >= 6
    assert len(FAULTS) >= 60
    planted = {fault for name in SHAPES for fault in faults_of(name, "float32")}
    assert planted == set(FAULTS)
    reported = {fault.reported for fault in FAULTS.values()} - {""}
    assert len(reported) >= 12


def test_what_a_target_lacks_is_not_tested_and_never_passed():
    def logits(ids):
        return np.cos(np.outer(np.cumsum(ids), np.arange(1, 12)))

    report = conform(logits)
    words = {one.axis: one.word for one in report.verdicts}
    assert {axis for axis, word in words.items() if word is not Word.NOT_TESTED} == {
        "same-call",
        "causality",
        "length",
    }
    assert set(words) == set(AXES)


def test_a_prefix_that_was_not_reused_has_not_been_tested():
    made = decoder("llama-numpy")
    made.request = lambda ids: (made.logits(ids), 0)
    report = conform(made, axes=["warm-prefix"])
    assert report["warm-prefix"].word is Word.NOT_TESTED
    assert "no token of the prefix was reused" in report["warm-prefix"].evidence


def test_more_reuse_than_texts_share_is_a_bug_even_with_the_right_logits():
    made = decoder("llama-numpy")
    made.request = lambda ids: (made.logits(ids)[-1:], len(ids) - 1)
    report = conform(made, axes=["warm-prefix"])
    assert report["warm-prefix"].word is Word.BUG


def test_what_the_target_raises_on_an_axis_is_a_bug_of_that_axis():
    made = decoder("llama-numpy")
    whole_step = made.step

    def step(ids, cache):
        if cache.seen and len(ids) > 1:
            raise RuntimeError("the mask is 1 x 1")
        return whole_step(ids, cache)

    made.step = step
    report = conform(made, axes=["cached"], shrink=False, kinds=False)
    assert report["cached"].word is Word.BUG
    assert "RuntimeError: the mask is 1 x 1 (test_axes.py, line " in report["cached"].evidence


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_may_change_bits_and_are_judged_by_the_twin(dtype):
    clean = conform(decoder("moe-numpy", dtype=dtype), effort="quick")
    assert clean.exit_code == 0, clean
    leak = conform(decoder("moe-numpy", dtype=dtype, faults=("future_both",)), axes=["causality"])
    assert leak["causality"].word is Word.BUG


def test_a_long_shift_of_float32_tables_is_rounding_and_a_short_one_a_bug():
    """Left padding counted as positions: no fault where positions are rotary."""
    made = decoder("llama-numpy", faults=("pad_pos",), max_length=80)
    report = conform(made, axes=["left-padding"])
    assert report["left-padding"].word in (Word.ROUNDING, Word.TIE), report
    made = decoder("gpt-numpy", faults=("pad_pos",))
    assert conform(made, axes=["left-padding"])["left-padding"].word is Word.BUG

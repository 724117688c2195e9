"""Each axis finds a fault that it is there for, with the twin; and nothing in a clean decoder."""

from __future__ import annotations

import numpy as np
import pytest

from minikv.conform import Word, conform, rule
from minikv.conform.axes import AXES
from minikv.conform.bench import Bench, Pair, Seen, Settings
from tests.conform.faults import FAULTS, faults_of
from tests.conform.zoo import SHAPES, Decoder, decoder

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


ALL_WAYS = {"effort": "quick", "length": 24, "shrink": False, "kinds": False}


@pytest.mark.parametrize("fault", ["base_both", "scale_both"])
def test_what_is_wrong_in_all_ways_alike_is_seen_by_a_second_implementation_alone(fault):
    report = conform(decoder("llama-numpy", faults=(fault,)), **ALL_WAYS)
    assert [bug.axis for bug in report.bugs] == ["second"]


def test_a_constant_shift_of_rotary_positions_is_seen_by_the_axis_of_positions_alone(monkeypatch):
    turned = Decoder.rope

    def shifted(self, x, positions, cached):
        return turned(self, x, positions + 1, cached)

    monkeypatch.setattr(Decoder, "rope", shifted)
    report = conform(decoder("llama-numpy"), **ALL_WAYS)
    assert [bug.axis for bug in report.bugs] == ["positions"]
    assert report["second"].word is Word.ROUNDING


@pytest.mark.parametrize(
    ("name", "word"), [("llama-numpy", Word.BUG), ("moe-numpy", Word.ROUNDING)]
)
def test_errors_of_the_narrow_dtype_alone_are_not_judged_of_experts(name, word):
    made = decoder(name, faults=("narrow_softmax",))
    assert conform(made, axes=["cached"], **ALL_WAYS)["cached"].word is word


def test_a_store_of_float16_moves_a_row_by_little_and_is_a_bug_of_its_own_kind():
    made = decoder("llama-numpy", faults=("kv_float16",))
    found = conform(made, axes=["cached"], effort="quick", length=24)["cached"]
    assert found.word is Word.BUG
    assert found.kind.name == "a coarser K/V store"
    assert 0 < found.units * rule.UNITS["float32"] < 1e-3


def test_quick_takes_shorter_texts_and_runs_the_twin_on_what_differs_most(monkeypatch):
    judged: dict[str, list[float]] = {}
    seen: dict[str, list[float]] = {}
    for effort in ("quick", "default"):
        bench = Bench(decoder("llama-numpy"), Settings(effort=effort))
        see = bench.see
        judge = bench.judge

        def noted_see(pair, see=see, effort=effort):
            found = see(pair)
            seen.setdefault(effort, []).append(found.worst)
            return found

        def noted_judge(one, judge=judge, effort=effort):
            judged.setdefault(effort, []).append(one.worst)
            return judge(one)

        monkeypatch.setattr(bench, "see", noted_see)
        monkeypatch.setattr(bench, "judge", noted_judge)
        AXES["cached"].test(bench)
        assert len(bench.texts[0]) == bench.length == {"quick": 40, "default": 80}[effort]
    assert judged["quick"] == sorted(seen["quick"], reverse=True)[:4]
    assert len(seen["quick"]) > 4
    assert judged["default"] == sorted(seen["default"], reverse=True)


def test_nudged_weights_are_multiplied_by_one_plus_or_minus_a_unit():
    made = decoder("llama-numpy")
    unit = np.float64(rule.UNITS["float32"])
    weight = np.asarray(made.head, np.float64)
    nudged = np.asarray(made.nudged(0).head, np.float64)
    up, down = ((weight * (1 + sign * unit)).astype(np.float32) for sign in (1, -1))
    assert ((nudged == up) | (nudged == down)).all()
    assert (nudged != weight).mean() > 0.5


def test_without_float64_a_noise_twin_bounds_row_by_row_and_then_the_rows_own_spread():
    made = decoder("llama-numpy")
    bench = Bench(made, Settings(twin="noise", length=24))
    ids = bench.texts[0]
    noise = np.max(
        [rule.row_differences(bench.whole(ids), one.logits(ids)) for one in bench.nudged], axis=0
    )
    assert bench.wide is None
    assert len(set(noise)) == len(ids)
    expected = rule.NOISES * np.maximum(noise, rule.UNITS["float32"])
    assert (bench.bounds(ids).rounding == expected).all()
    alone = Bench(made, Settings(twin="none", length=24)).bounds(ids)
    assert alone.yardstick == "its own spread over lengths"


def test_what_lies_between_two_bounds_is_undecided_and_nothing_else_is():
    bench = Bench(decoder("llama-numpy"), Settings(twin="none", length=24))
    ids = bench.texts[0]
    bounds = bench.bounds(ids)
    expected = bench.whole(ids)
    for size, undecided, bad in (
        (bounds.rounding, False, False),
        (bounds.rounding * (1 + 2.0**-20), True, False),
        (bounds.bug, True, False),
        (bounds.bug * (1 + 2.0**-20), False, True),
    ):
        differences = np.zeros(len(ids)) + size
        judged = bench.judge(Seen(Pair("given", ids, bench.whole), expected, expected, differences))
        assert (judged.undecided == undecided).all()
        assert (judged.bad == bad).all()


def test_units_are_those_of_the_dtype():
    for dtype in ("float32", "float16"):
        made = decoder("gpt-numpy", dtype=dtype, faults=("pos_plus1",))
        report = conform(made, axes=["cached"], **ALL_WAYS)
        largest = report["cached"].units * np.finfo(dtype).eps / 2
        assert largest == report.measured["largest native difference"] > 0

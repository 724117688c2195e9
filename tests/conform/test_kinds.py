"""Bugs are shrunk, located and named."""

from __future__ import annotations

import numpy as np
import pytest

from minikv.conform import Word, conform
from minikv.conform.bench import Bench
from minikv.conform.kinds.planted import PLANTED
from minikv.conform.kinds.reproduce import reproduce
from minikv.conform.rule import row_differences
from tests.conform.evidence import judge
from tests.conform.faults import FAULTS
from tests.conform.zoo import decoder

WINDOWED = ("window_plus1", "window_minus1", "window_all")
REPRODUCED = ("pos_reset", "pos_plus1", "pos_minus1", "mask_own_chunk", "own_row_hidden")
REPRODUCED += ("skip_key0", "chunk_open", "rerotate", "kv_float16", "scale_cached", "gqa_tile")
GUESSED = ("pos_clamp", "mod32", "eps_cached", "stale_global", "trunc_pos", "batch_order")


@pytest.mark.parametrize(
    "fault",
    [*REPRODUCED[:2], *(pytest.param(fault, marks=pytest.mark.slow) for fault in REPRODUCED[2:])],
)
def test_the_kind_is_decided_by_reproducing_it_in_minikv(fault):
    bench = Bench(decoder("llama-numpy", faults=(fault,)))
    assert reproduce(bench) == FAULTS[fault].kind


@pytest.mark.slow
@pytest.mark.parametrize("fault", WINDOWED)
def test_kinds_of_windows_are_reproduced_too(fault):
    bench = Bench(decoder("window-torch", faults=(fault,)))
    assert reproduce(bench) == FAULTS[fault].kind


def test_nothing_is_reproduced_for_a_clean_decoder_or_another_fault():
    assert reproduce(Bench(decoder("llama-numpy"))) == ""
    assert reproduce(Bench(decoder("llama-numpy", faults=("softmax_extra",)))) == ""


def test_every_planted_fault_changes_minikvs_logits():
    pytest.importorskip("torch", reason="needs torch, not installed here")
    model = decoder("window-torch").reference()
    ids = [int(token) for token in np.random.default_rng(0).integers(0, 40, 24)]
    for planted in PLANTED:
        rows = np.concatenate([planted.run(model, ids, ch) for ch in ([12, 12], [12] + [1] * 12)])
        whole = np.tile(np.asarray(model.logits(ids)), (2, 1))
        assert row_differences(whole, rows).max() > 1e-5, planted


@pytest.mark.slow
@pytest.mark.parametrize("fault", GUESSED)
def test_other_kinds_are_guessed_and_said_to_be(fault):
    found = judge("gpt-numpy", fault, "float32", 1)
    assert found.named, found.kind
    assert not found.reproduced


def test_the_smallest_case_fails_and_nothing_of_it_can_be_left_out():
    made = decoder("llama-numpy", faults=("pos_plus1",))
    report = conform(made, axes=["cached"])
    case = report["cached"].case
    assert len(case.ids) == 2
    assert case.chunks == (1, 1)
    cache = made.new_cache()
    made.step(case.ids[:1], cache)
    got = made.step(case.ids[1:], cache)
    assert row_differences(made.logits(case.ids)[1:], got)[0] > 1e-3
    assert report["cached"].where == "blocks.0.attn.hook_rot_k"


def test_a_bug_of_another_axis_comes_with_the_shortest_texts_that_show_it():
    """Texts of the batch are of 21, 9, 14 and 19 tokens, or all of the length: no padding then."""
    made = decoder("gpt-numpy", faults=("pad_pos",))
    run = {"axes": ["left-padding"], "effort": "quick"}
    assert conform(made, **run)["left-padding"].length == 12
    assert conform(made, length=12, **run)["left-padding"].word is Word.BUG
    assert conform(made, length=8, **run)["left-padding"].word is not Word.BUG


def test_the_first_bad_position_is_counted_in_the_whole_text():
    made = decoder("llama-numpy", faults=("trunc_off1",))
    found = conform(made, axes=["truncate"], effort="quick", shrink=False, kinds=False)
    assert found["truncate"].row == 9  # behind the nine tokens that were kept


def test_an_error_that_the_target_raises_says_itself_what_it_is():
    made = decoder("llama-numpy")

    def truncate(cache, length):
        raise IndexError("no row 9")

    made.truncate = truncate
    found = conform(made, axes=["truncate"], effort="quick")["truncate"]
    assert found.word is Word.BUG
    assert found.raised
    assert found.kind is None


@pytest.mark.slow
def test_the_first_bad_activation_is_of_the_layer_that_is_wrong():
    made = decoder("window-torch", faults=("window_all",), layers=4)  # layers 1 and 3 have none
    report = conform(made, axes=["cached"])
    assert report["cached"].where == "blocks.1.hook_resid_mid"


def test_a_leak_beside_a_wrong_cache_is_a_fault_of_its_own():
    made = decoder("gpt-numpy", faults=("pos_reset", "fork_shared"))
    report = conform(made, axes=["cached", "truncate", "fork"], effort="quick", shrink=False)
    kinds = {bug.axis: bug.kind.name for bug in report.bugs}
    assert kinds["cached"] == kinds["truncate"] == FAULTS["pos_reset"].kind
    assert kinds["fork"] == FAULTS["fork_shared"].kind


def test_a_bug_at_the_end_of_the_context_has_no_shorter_texts():
    made = decoder("gpt-numpy", faults=("pos_wrap",))
    found = conform(made, axes=["last-position"], effort="quick")["last-position"]
    assert found.word is Word.BUG
    assert found.length is None

"""The counts: a sample of every decoder's faults; all: ``python -m tests.conform.evidence``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import minikv
from minikv.conform.rule import row_differences
from tests.conform import evidence, field, tables
from tests.conform.evidence import added, clean, judge, judge_real, kept
from tests.conform.faults import FAULTS, faults_of
from tests.conform.real import real_decoder, weights_of
from tests.conform.zoo import SHAPES

NARROW = [pytest.param(name, marks=pytest.mark.night) for name in ("bfloat16", "float16")]
ROOT = Path(__file__).parents[2]
IDS = [504, 14127, 29899, 837, 260, 5386]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", *NARROW])
@pytest.mark.parametrize("name", SHAPES)
def test_a_sample_of_faults_is_found_and_none_called_good_above_its_sight(name, dtype):
    for fault in faults_of(name, dtype)[::19]:
        found = judge(name, fault, dtype, 2)
        assert found.with_twin, (name, fault)
        assert found.blind == [], (name, fault)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_clean_models_raise_no_alarm(dtype):
    for twin in ("wide", "noise", "none"):
        figures = clean(dtype, twin, 5000, 8)
        assert figures["false alarms"] == 0, figures
        assert figures["models"] == 8


@pytest.mark.slow
@pytest.mark.weights
def test_the_zoo_with_real_weights_is_the_real_model(smollm2):
    """Half a unit in each weight, from norms multiplied in, is what makes the difference."""
    model = minikv.load(smollm2)
    expected = np.asarray(model.logits(IDS), np.float64)
    got = np.asarray(real_decoder(smollm2).logits(IDS), np.float64)
    assert (got.argmax(-1) == expected.argmax(-1)).all()
    assert row_differences(expected, got).max() < 2.0**-14


@pytest.mark.slow
@pytest.mark.weights
def test_the_twelfth_layer_makes_massive_activations(smollm2):
    assert weights_of(smollm2)[0].num_hidden_layers == 30
    _, found = real_decoder(smollm2, layers=12).run_with_cache(IDS)
    largest = [np.abs(found[f"blocks.{layer}.hook_resid_post"]).max() for layer in range(12)]
    assert largest[11] > 20_000 > 10 * max(largest[:11])


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.usefixtures("smollm2")
@pytest.mark.parametrize(
    ("fault", "dtype"),
    [
        ("trunc_off1", "float32"),
        ("value_residual", "float32"),
        ("narrow_values_uncached", "bfloat16"),  # seven times the other way's error
    ],
)
def test_faults_in_real_weights_are_found(fault, dtype):
    found = judge_real(fault, dtype)
    assert found.with_twin
    assert found.blind == []


@pytest.mark.slow
def test_a_quick_run_of_a_model_of_three_layers_takes_less_than_ten_seconds(monkeypatch):
    monkeypatch.chdir(ROOT)
    title, figures = next(evidence.speed())
    assert figures["processor time"] < 10, figures
    assert figures["axes"] >= 20
    assert not evidence.is_bad(figures)
    assert evidence.is_bad(figures | {"exit code": 2})
    assert f"| `{figures['quick run']}` |" in tables._speed([figures | {"date": "today"}])
    assert title.endswith(figures["quick run"])


def test_a_run_fails_where_a_fault_is_missed_or_fewer_than_nine_in_ten_are_named():
    right = evidence.Found("a", "pos_reset", "float32", True, False, kind=FAULTS["pos_reset"].kind)
    wrong = dataclasses.replace(right, kind="another")
    figures = evidence.figures_of([right] * 9 + [wrong], "ten")
    assert figures["percent of kinds right"] == 90.0
    assert not evidence.is_bad(figures)
    assert evidence.is_bad(evidence.figures_of([right] * 8 + [wrong] * 2, "ten"))
    missed = dataclasses.replace(right, with_twin=False)
    assert evidence.is_bad(evidence.figures_of([right] * 9 + [missed], "ten"))
    blind = dataclasses.replace(right, blind=["cached"])
    assert evidence.is_bad(evidence.figures_of([right] * 9 + [blind], "ten"))


def test_runs_that_follow_each_other_are_added_and_others_replace(tmp_path, monkeypatch):
    first = {"models": 50, "first": 0, "false alarms": 0, "undecided": 3, "largest": 2.0}
    more = {"models": 50, "first": 50, "false alarms": 1, "undecided": 0, "largest": 1.0}
    assert added(first, more) == {
        "models": 100,
        "first": 0,
        "false alarms": 1,
        "undecided": 3,
        "largest": 2.0,
    }
    assert added(more, more) == more
    monkeypatch.setattr("tests.conform.evidence.FIGURES", tmp_path / "figures" / "counts.json")
    kept("clean", first)
    kept("clean", more)
    assert '"models": 100' in (tmp_path / "figures" / "counts.json").read_text()


def test_runs_of_another_copy_are_taken_where_they_are_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "FIGURES", tmp_path / "counts.json")
    known = {"a": {"models": 100}, "b": {"models": 50}, "c": {"decoder x fault": 9}}
    other = {"a": {"models": 50}, "b": {"models": 100}, "d": {"decoder x fault": 3}}
    evidence.FIGURES.write_text(json.dumps(known))
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert evidence.main(["take", "--counts", str(tmp_path / "other.json")]) == 0
    assert json.loads(evidence.FIGURES.read_text()) == known | {"b": other["b"], "d": other["d"]}


def test_rows_of_the_field_are_kept_unless_a_version_changed(tmp_path, monkeypatch):
    rows = [{"target": "a"}, {"target": "b", "missing": "no such package"}, {"target": "c"}]
    monkeypatch.setattr(field, "FIGURES", tmp_path / "field.json")
    monkeypatch.setattr(field, "versions", lambda: {"numpy": "2", "kvpress": "1"})

    def kept_with(versions):
        figures = {"versions": versions, "rows": rows}
        field.FIGURES.write_text(json.dumps(figures))
        return [row["target"] for row in field.before(["a", "b"])]

    assert kept_with({"numpy": "2", "kvpress": "1"}) == ["a"]
    assert kept_with({"numpy": "2", "kvpress": field.MISSING}) == ["a"]
    assert kept_with({"numpy": "1", "kvpress": "1"}) == []

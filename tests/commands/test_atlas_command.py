"""``minikv atlas``: all systems, one of them, and what it finds."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from minikv.atlas import Comparison, entries
from minikv.caches import POLICIES

TINY = str(Path(__file__).parents[1] / "fixtures" / "tiny")


def test_it_lists_all_systems(run):
    code, out, _ = run("atlas")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:66]] == list(entries())
    assert "65 systems" in out


def test_json_has_every_entry(run):
    code, out, _ = run("atlas", "--json")
    assert code == 0
    found = json.loads(out)["entries"]
    assert {entry["name"]: entry["verdict"] for entry in found} == {
        name: str(entry.verdict) for name, entry in entries().items()
    }


def test_one_system_says_what_it_is_and_what_came_out(run):
    code, out, _ = run("atlas", "chelsea")
    assert code == 0
    assert "arXiv 2506.11418" in out
    read = " ".join(entries()["chelsea"].read.split())
    assert f"read: {read}" in " ".join(out.split())
    assert out.count("as said: ") == 4
    code, out, _ = run("atlas", "chelsea", "--json")
    found = json.loads(out)
    assert all(comparison["holds"] for comparison in found["comparisons"])
    assert found["seconds"] < 60


def test_figures_are_written_to_a_file(run, tmp_path):
    for words, key in (((), "entries"), (("chelsea",), "comparisons")):
        path = tmp_path / f"{key}.json"
        assert run("atlas", *words, "--output", str(path))[0] == 0
        assert key in json.loads(path.read_text(encoding="utf-8"))


def test_a_comparison_that_comes_out_otherwise_ends_with_1(run, monkeypatch):
    entry = entries()["chelsea"]
    wrong = type(entry)(**{**vars(entry), "demonstrate": lambda: [Comparison("it", False, "no")]})
    monkeypatch.setitem(entries(), "chelsea", wrong)
    code, out, _ = run("atlas", "chelsea")
    assert code == 1
    assert "NOT AS SAID: it: no" in out


def test_what_is_not_built_says_why(run):
    code, out, _ = run("atlas", "vita_llm")
    assert code == 0
    assert "Hardware" in out
    assert "as said" not in out


def test_an_unknown_name_is_refused_in_one_line(run):
    code, _, err = run("atlas", "caek")
    assert code == 2
    assert "'caek' is not in the atlas, choose from arkv, cake" in err


def test_caches_of_few_bits_are_measured_on_a_model(run, tmp_path):
    prompts = tmp_path / "prompts.txt"
    figures = tmp_path / "figures.json"
    prompts.write_text("=== one\nThe quick brown fox jumps over it.\n", encoding="utf-8")
    words = ("--model", TINY, "--prompts", str(prompts), "--new-tokens", "2")
    code, out, _ = run("atlas", "dont_waste_bits", *words, "--output", str(figures))
    assert code == 0
    assert "residual:every@0" in out
    assert "Don't Waste Bits" in out
    told = json.loads(figures.read_text(encoding="utf-8"))
    assert {"command", "date", "machine"} <= told.keys()
    assert {row["bits_equal"] for row in told["rows"][:2]} == {True}
    assert told["rows"][2]["logit_moved"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cake", "--model", TINY), "CAKE is a policy: minikv compare --policies atlas:cake"),
        (("h2o", "--model", TINY), "H2O is a policy: minikv compare --policies h2o"),
        (("quasar", "--model", TINY), "Quasar keeps no cache of few bits: leave out --model"),
        (("cake", "--new-tokens", "3"), "are of a measurement: add --model NAME"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(run, words, message):
    code, _, err = run("atlas", *words)
    assert code == 2
    assert message in err


def test_a_policy_of_the_atlas_is_a_cache_of_generate_too(run):
    words = ("generate", "Hello there", "--model", TINY, "--max-new-tokens", "9", "--json")
    with patch.dict(POLICIES):  # what is asked for by name is registered, and gone after the test
        code, out, _ = run(*words, "--cache", "atlas:trim_kv@4")
    assert code == 0
    told = json.loads(out)
    held = told["cache_tokens"] * told["cache_bytes"] // told["full_cache_bytes"]
    assert held == 4 < told["cache_tokens"]

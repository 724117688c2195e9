"""docs/conform.md: its code runs, and its tables are those that the commands make."""

from __future__ import annotations

import doctest
import json
import re
import tomllib
from typing import Any

import pytest

from minikv.conform import adapter, conform
from minikv.conform.diagnosis import LENGTHS
from minikv.conform.targets.llama_cpp import LlamaCppTarget
from minikv.conform.targets.openai_server import OpenAITarget
from tests.conform import evidence, field, tables
from tests.conform.zoo import decoder


def test_the_adapter_on_the_page_does_what_the_page_says():
    page = tables.PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(>>> .*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    parsed = doctest.DocTestParser().get_doctest(blocks[0], {}, "conform.md", "conform.md", 0)
    assert len(parsed.examples) >= 8
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(parsed, out=report.append)
    assert not report, "".join(report)


def test_the_adapter_has_the_lines_that_its_heading_says():
    page = tables.PAGE.read_text(encoding="utf-8")
    said = int(re.search(r"## An adapter in (\d+) lines", page)[1])
    start = page.index(">>> class Averaging")
    lines = page[start : page.index(">>> report")].strip().splitlines()
    assert len(lines) <= said


def test_the_tables_on_the_page_are_those_that_the_command_writes():
    page = tables.PAGE.read_text(encoding="utf-8")
    advice = "run  python -m tests.conform.tables --write"
    assert tables.written(page) == page, advice
    assert page.count("<!-- end -->") == 3


def page() -> str:
    """The page, each paragraph in one line."""
    return " ".join(tables.PAGE.read_text(encoding="utf-8").split())


def figures(name: str) -> Any:
    """What a file of figures holds."""
    return json.loads((tables.FIGURES / name).read_text(encoding="utf-8"))


def test_the_page_names_the_lengths_in_which_a_bug_is_looked_for_again():
    *most, last = LENGTHS
    assert f"of {', '.join(map(str, most))} and {last} tokens" in page()


def test_the_adapters_docstring_names_all_that_is_read_of_a_target():
    read = {*adapter.METHODS, *adapter.NUMBERS, *adapter.LISTS, "dtype"}
    assert len(read) > 20
    told = set(re.findall(r"\w+", adapter.__doc__))
    assert read - told == set()
    for name in ("truncate", "fork", "batch", "request", "policies", "run_with_cache", "wide"):
        assert name in read


def test_pytest_finds_no_plugin_of_minikvs_by_itself():
    project = tomllib.loads((tables.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "pytest11" not in project["project"].get("entry-points", {})


def test_a_cache_is_two_methods_more():
    """A function has three axes; with these two, and no other method, `cached` is tested too."""
    made = decoder("llama-numpy")

    class Small:
        logits = staticmethod(made.logits)
        new_cache = staticmethod(made.new_cache)
        step = staticmethod(made.step)

    assert str(conform(Small, ["cached"], effort="quick", length=12)["cached"].word) == "rounding"


def test_seed_2_has_other_shapes_than_seed_1():
    for name in evidence.SHAPES:
        if name.endswith("torch"):
            continue  # whose shapes are those of the others
        assert evidence.shape_of(name, 1) == {}
        one, two = decoder(name, 1), decoder(name, 2, **evidence.shape_of(name, 2))
        assert (one.layers, one.width, one.vocab) != (two.layers, two.width, two.vocab)


def test_real_weights_are_judged_on_one_axis_and_a_short_text_and_not_asked_for_a_kind(monkeypatch):
    asked: dict[str, Any] = {}
    monkeypatch.setattr(evidence, "found_in", lambda *_, **settings: asked.update(settings))
    evidence.judge_real("trunc_off1", "float32")
    assert asked["axes"] == ["truncate"]
    assert asked["length"] == 12
    assert asked["kinds"] is False
    assert evidence.REAL_LAYERS == 16
    assert "the first 16 of SmolLM2's 30 layers" in page()


def test_weak_attention_is_a_quarter_and_a_half_and_mostly_undecided_in_16_bits():
    runs = [run for run in figures("counts.json").values() if "weak" in run.get("run", "")]
    gains = {re.search(r"gain ([\d.]+)", run["run"])[1] for run in runs}
    assert gains == {"0.25", "0.5"}
    narrow = [run for run in runs if "float32" not in run["run"]]
    assert len(narrow) == 4
    for run in narrow:
        assert 2 * run["without twin: undecided"] > run["decoder x fault"], run


def test_each_night_all_three_dtypes_are_run_with_the_nights_own_seeds():
    nightly = (tables.ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8")
    job = nightly[nightly.index("\n  conform:") :].split("\n\n")[0]
    assert "dtype: [float32, bfloat16, float16]" in job
    for what in ("faults --dtype ${{ matrix.dtype }}", "clean --dtype ${{ matrix.dtype }}"):
        [line] = [line for line in job.splitlines() if what in line]
        assert "github.run_number" in line


def test_texts_of_the_field_reach_beyond_mistrals_windows():
    settings = {name: chosen for name, chosen, _ in field.contenders()}
    mistral = {name for name in settings if " mistral " in name}
    assert len(mistral) == 5
    assert all(settings[name] == {"length": 32} for name in mistral)
    layers = field.SIZE["num_hidden_layers"]
    assert layers * (field.WINDOW - 1) == 24
    assert not any("length" in settings[name] for name in settings.keys() - mistral)


def test_the_field_is_tiny_models_and_short_texts(monkeypatch, tmp_path):
    asked: list[dict[str, Any]] = []

    def noted(target, **settings):
        asked.append(settings)
        return conform(target, axes=["length"], effort="quick", length=4)

    made = [("a decoder", {}, lambda: decoder("gpt-numpy"))]
    monkeypatch.setattr(field, "contenders", lambda: made)
    monkeypatch.setattr(field, "conform", noted)
    monkeypatch.setattr(field, "FIGURES", tmp_path / "field.json")
    assert field.main([]) == 0
    assert asked[0]["effort"] == "quick"
    assert asked[0]["length"] == 24
    assert json.loads(field.FIGURES.read_text(encoding="utf-8"))["rows"][0]["target"] == "a decoder"
    assert (field.OWN.num_hidden_layers, field.OWN.hidden_size) == (3, 64)
    for _, _, size in field.FAMILIES.values():
        assert size.get("num_hidden_layers", size.get("n_layer")) == 3
        assert size.get("hidden_size", size.get("n_embd")) == 64


def test_the_rows_called_float64_are_those_of_eager_attention_but_for_gpt2():
    eager = [row for row in figures("field.json")["rows"] if " eager " in row["target"]]
    eager = [row for row in eager if row["target"].startswith("transformers ")]
    assert len(eager) == 10
    for row in eager:
        wrong = [bug for bug in row["bugs"] if "not finite in float64" in bug]
        assert bool(wrong) == ("gpt2" not in row["target"]), row
        assert all(bug.startswith("float64: ") and "padded on the left" in bug for bug in wrong)


def test_the_real_file_in_4_bits_is_undecided_where_the_page_says_so():
    run = figures("smollm2-stored.json")
    assert (run["dtype"], run["twin"]) == ("float16", "none")
    axes = {one["axis"]: one for one in run["axes"]}
    told = page().split("It has the same bits on ")[1].split("With everything in float32")[0]
    same, undecided = told.split(" On ", 1)
    by_word: dict[str, set[str]] = {}
    for name, one in axes.items():
        by_word.setdefault(one["verdict"], set()).add(name)
    assert by_word["same bits"] - {"same-call"} == set(re.findall(r"`([\w-]+)`", same))
    assert by_word["undecided"] == set(re.findall(r"`([\w-]+)`", undecided))
    assert "bug" not in by_word
    assert "34 of 34 shared tokens were reused" in axes["warm-prefix"]["evidence"]
    assert axes["cached"]["evidence"].startswith("chunks half, then one by one: 1.2e-01 of a row")
    assert f"{axes['cached']['effect']:.0%}" == "12%"


def test_the_real_file_in_float32_differs_by_less_than_a_hundred_thousandth():
    axes = figures("smollm2-float32.json")["axes"]
    tested = [one for one in axes if one["verdict"] != "not tested"]
    assert {"cached", "truncate", "last-position"} <= {one["axis"] for one in tested}
    assert 0 < max(one["units"] for one in tested) * 2.0**-24 < 1e-5


@pytest.mark.parametrize("ability", ["run_with_cache", "run_with_hooks", "wide", "nudged", "step"])
def test_a_server_has_no_activations_and_no_float64(ability):
    assert not hasattr(OpenAITarget, ability)


@pytest.mark.parametrize("ability", ["wide", "nudged", "batch", "fork"])
def test_llama_cpp_has_no_float64_no_batch_and_no_forks(ability):
    assert not hasattr(LlamaCppTarget, ability)

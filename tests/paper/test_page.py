"""The page of the paper says what the results hold, and its exact figures come out again."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest

from minikv.paper.claims import CLAIMS
from minikv.paper.render import (
    drawn_from,
    markdown,
    page,
    picture,
    picture_source,
    ran_on,
    slug,
)
from minikv.paper.run import Section, described, examine, keep, kept

FOLDER = Path(__file__).parents[2] / "docs" / "paper"


@pytest.fixture
def make():
    """docs/paper/make.py, as a module of its own."""
    spec = importlib.util.spec_from_file_location("make_paper", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_plots_follow_from_the_results(make):
    assert make.stale() == [], "python docs/paper/make.py"


@pytest.mark.parametrize("id", CLAIMS)
def test_a_verdict_and_its_reason_follow_from_the_figures(id):
    """And from nothing else: they are told again, without a run, and change with a figure."""
    finding = kept(FOLDER / "results")[id].finding
    assert CLAIMS[id].told(finding.figures) == (finding.verdict, finding.reason)
    assert finding.reason in (FOLDER.parent / "paper.md").read_text(encoding="utf-8")
    changed = (changes(finding.figures, kind) for kind in (bool, float, int, str))
    others = (CLAIMS[id].told(other) for other in chain.from_iterable(changed))
    assert any(other != (finding.verdict, finding.reason) for other in others)


def changes(figures: object, kind: type) -> Iterator[object]:
    """The same figures with one of them changed, which is of a kind."""
    if type(figures) is kind and kind is bool:
        yield not figures
    elif type(figures) is kind:
        yield "FAILS" if kind is str else 2 * figures + 1
    elif isinstance(figures, list):
        for place, part in enumerate(figures):
            for other in changes(part, kind):
                yield [*figures[:place], other, *figures[place + 1 :]]
    elif isinstance(figures, dict):
        for key, part in figures.items():
            for other in changes(part, kind):
                yield {**figures, key: other}


def test_a_section_of_the_page_has_what_is_said_run_and_found():
    page = (FOLDER.parent / "paper.md").read_text(encoding="utf-8")
    results = kept(FOLDER / "results")
    for id, claim in CLAIMS.items():
        (section,) = re.findall(rf"(?ms)^## {re.escape(claim.where)}\n(.*?)(?=^## |\Z)", page)
        finding = results[id].finding
        parts = [f"The paper: {claim.says}", f"*Run:* {claim.protocol}"]
        parts += [f"**{str(finding.verdict).capitalize()}.** {finding.reason}"]
        assert [part for part in parts if part not in section] == []
        assert section.count("\n| ") == 2 + len(finding.rows)  # a head, and the line below it


def test_every_claim_is_kept_and_has_run_in_full():
    results = kept(FOLDER / "results")
    assert list(CLAIMS) == [id for id in CLAIMS if id in results and not results[id].quick]


def test_a_change_of_a_result_or_of_a_claim_makes_the_page_stale(make, tmp_path, monkeypatch):
    copied = shutil.copytree(FOLDER, tmp_path / "paper")
    monkeypatch.setattr(make, "FOLDER", copied)
    monkeypatch.setattr(make, "PAGE", tmp_path / "paper.md")
    monkeypatch.setattr(make, "RESULTS", copied / "results")
    assert make.stale() == [str(make.PAGE)]  # which is not there
    make.PAGE.write_text(markdown(CLAIMS, kept(make.RESULTS)), encoding="utf-8")
    assert make.stale() == []
    path = make.RESULTS / "equation-28.json"
    path.write_text(path.read_text(encoding="utf-8").replace("reading", "rending"), "utf-8")
    with pytest.raises(Exception, match="holds no result"):
        make.stale()
    held = kept(FOLDER / "results")["equation-28"]
    keep(replace(held, date="2026-01-01"), make.RESULTS)
    assert make.stale() == [str(make.PAGE)]
    (copied / "table-99.png").write_bytes(b"")
    assert make.stale()[1:] == [f"{copied / 'table-99.png'}: of no claim"]


@pytest.mark.parametrize("id", [id for id, claim in CLAIMS.items() if claim.plot])
def test_a_plot_says_what_it_was_drawn_from(id):
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    figures = kept(FOLDER / "results")[id].finding.figures
    source = picture_source(CLAIMS[id], figures)
    assert drawn_from(picture(CLAIMS[id], figures)) == source
    assert picture_source(CLAIMS[id], {**figures, "more": 1}) != source


def test_headings_of_the_page_are_different_anchors():
    anchors = [slug(claim.where) for claim in CLAIMS.values()]
    assert len(set(anchors)) == len(anchors)


def test_a_result_is_read_as_it_was_written(tmp_path):
    for result in kept(FOLDER / "results").values():
        path = keep(result, tmp_path)
        assert kept(tmp_path)[result.id] == result
        assert path.read_bytes() == (FOLDER / "results" / path.name).read_bytes()


@pytest.mark.slow
def test_the_html_page_needs_no_other_file():
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    results = kept(FOLDER / "results")
    sections = [Section(claim, "", results[id]) for id, claim in CLAIMS.items()]
    made = page(sections)
    assert "src=" not in made.replace('src="data:', "")
    assert "http" not in made
    for claim in CLAIMS.values():
        assert f'<section id="{claim.id}">' in made


def test_a_page_of_two_models_has_a_section_for_each():
    claim = replace(CLAIMS["table-3"], plot=None)
    result = kept(FOLDER / "results")["table-3"]
    other = Section(claim, "folder/Two", None, "not run: no such model")
    made = page([Section(claim, "one", result), Section(claim, "folder/two", result), other])
    assert '<section id="table-3-one">' in made
    assert '<section id="table-3-foldertwo">' in made
    assert made.count("<section") == 2
    assert "<td>folder/Two</td><td>not run: no such model</td>" in made


@pytest.mark.parametrize(
    ("load", "told"),
    [
        ((), ""),
        ((0.5, 1.25), "; load average 0.5 to 1.2 on 2 cores"),
        ((0.5, 2.5), "; load average 0.5 to 2.5 on 2 cores"),
        ((0.5, 2.75), "; load average 0.5 to 2.8 on 2 cores: crowded, so that times are noisy"),
    ],
)
def test_a_run_on_a_crowded_machine_says_so(load, told):
    held = kept(FOLDER / "results")["equation-28"]
    result = replace(held, load=load, cores=2, machine="m")
    assert ran_on(result).endswith(f"; m{told}")


def test_a_run_names_the_compiler_of_its_kernels_where_it_has_one(monkeypatch):
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    without = described()
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(__version__="9.9"))
    assert described() == f"{without}, Numba 9.9"


def test_a_run_says_what_the_processor_spent():
    result = examine(CLAIMS["equation-28"], quick=True)
    assert result.processor is not None
    assert result.processor >= 0
    assert f"({result.processor:.1f} s of processor time)" in ran_on(result)
    assert len(result.load) in (0, 2)


WITHOUT_WEIGHTS = [id for id, claim in CLAIMS.items() if claim.exact and not claim.models]
AS_THEOREMS = (
    "definition-3.1",
    "proposition-3.1",
    "proposition-3.2",
)  # CI runs these by themselves
BY_NIGHT = [pytest.param(id, marks=[pytest.mark.slow, pytest.mark.night]) for id in AS_THEOREMS]
OTHERS = [
    id for id, claim in CLAIMS.items() if claim.exact and claim.models and id not in AS_THEOREMS
]


def same_again(id: str) -> None:
    result = examine(CLAIMS[id], quick=True)
    assert json.loads(json.dumps(result.exact)) == kept(FOLDER / "results")[id].exact


@pytest.mark.parametrize("id", WITHOUT_WEIGHTS)
def test_figures_that_no_machine_changes_come_out_again(id):
    same_again(id)


@pytest.mark.weights
@pytest.mark.parametrize("id", [*OTHERS, *BY_NIGHT])
def test_figures_of_real_weights_that_no_machine_changes_come_out_again(id, gemma):
    same_again(id)

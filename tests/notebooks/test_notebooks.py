"""The committed notebooks are those of their sources, ran from top to bottom, and hold no error."""

from __future__ import annotations

from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`")
build = pytest.importorskip("build", reason="needs the extra `notebooks`")

SOURCES = build.sources([])


@pytest.fixture(params=SOURCES, ids=[path.stem for path in SOURCES])
def pair(request) -> tuple:
    target: Path = request.param.with_suffix(".ipynb")
    return build.read(request.param), nbformat.read(target, as_version=4)


def test_the_notebook_is_that_of_its_source(pair):
    source, kept = pair
    advice = "run  python notebooks/build.py"
    assert kept.metadata["code_sha256"] == source.metadata["code_sha256"], advice
    assert [c.source for c in kept.cells] == [c.source for c in source.cells], advice
    assert [c.cell_type for c in kept.cells] == [c.cell_type for c in source.cells], advice


def test_it_ran_from_top_to_bottom_without_an_error(pair):
    cells = [c for c in pair[1].cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not [o for c in cells for o in c.outputs if o.output_type == "error"]


def test_every_chapter_has_figures_and_at_least_four_exercises(pair):
    cells = [c for c in pair[1].cells if c.cell_type == "code"]
    shown = [o for c in cells for o in c.outputs if "image/png" in o.get("data", {})]
    assert shown
    verdicts = [o.get("text", "") for c in cells for o in c.outputs]
    assert sum(text.count("Not yet: ") for text in verdicts) >= 4


def test_new_text_keeps_outputs_and_new_code_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "HERE", tmp_path)
    source, old = tmp_path / "01_one.py", "# %% [markdown]\n# Old.\n\n# %%\nprint(1)\n"
    source.write_text(old)
    kept = build.read(source)
    kept.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    nbformat.write(kept, source.with_suffix(".ipynb"))
    source.write_text(old.replace("Old", "New"))
    assert build.is_kept(source)
    made = build.with_outputs_of(build.read(source), kept)
    assert (made.cells[0].source, made.cells[1].outputs[0].text) == ("New.", "1\n")
    source.write_text(old.replace("print(1)", "print(2)"))
    assert not build.is_kept(source)


def test_there_are_no_strays():
    targets = {path.stem for path in build.HERE.glob("*.ipynb")}
    assert targets == {path.stem for path in SOURCES}

"""The edition for JupyterLite: short versions of chapters, and that their code needs no weights.

`run_short.py` runs them, chapters 7 and 8 at night. JupyterLite runs them on Pyodide, which cannot
be had here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import lite_site
import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("build", reason="needs the extra `notebooks`")
import build
import short
from run_short import run

NUMBERS = {path.stem[:2]: path for path in build.sources([])}


@pytest.fixture(scope="module")
def edition(tmp_path_factory) -> Path:
    """The files of the edition."""
    folder = tmp_path_factory.mktemp("edition")
    lite_site.lay_out(folder)
    return folder


def sources(folder: Path, name: str, kind: str) -> list[str]:
    cells = json.loads((folder / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_the_edition_has_the_chapters_without_weights_and_two_short_ones(edition):
    names = [path.name for path in sorted((edition / "notebooks").glob("*.ipynb"))]
    assert [name[:2] for name in names] == ["03", "04", "07", "08"]
    assert [name.endswith("_short.ipynb") for name in names] == [True, True, False, False]
    for name in names:
        code = "\n".join(sources(edition, name, "code"))
        assert "minikv.load(" not in code
        assert sources(edition, name, "code")[0] == short.PREPARED


@pytest.mark.parametrize("number", short.SHORT)
def test_a_short_version_is_its_chapter_less_something(edition, number):
    source = NUMBERS[number]
    whole = build.read(source)
    name = f"{source.stem}_short.ipynb"
    paragraphs = "\n\n".join(c.source for c in whole.cells if c.cell_type == "markdown").split(
        "\n\n"
    )
    prose = "\n\n".join(sources(edition, name, "markdown")).split("\n\n")
    assert set(prose) - set(paragraphs) == {short.NOTE}
    assert len(prose) > len(paragraphs) / 2
    lines = {line for c in whole.cells if c.cell_type == "code" for line in c.source.split("\n")}
    new = {line for text in sources(edition, name, "code")[2:] for line in text.split("\n")} - lines
    assert new
    assert all("small_model(" in line for line in new), new


def test_a_chapter_that_has_changed_asks_what_to_leave_out():
    what = replace(short.SHORT["03"], paragraphs=("No paragraph begins so",))
    with pytest.raises(SystemExit, match="has no 'No paragraph begins so'"):
        short.shortened(NUMBERS["03"], what)


def test_the_site_links_to_every_notebook_of_the_edition(edition):
    links = lite_site.links(edition)
    for path in (edition / "notebooks").glob("*.ipynb"):
        assert f'href="lite/lab/index.html?path=notebooks/{path.name}"' in links
    assert "7. Where the claim fails" in links


@pytest.mark.slow
def test_chapter_3_runs_without_weights(edition):
    assert run(edition, "03_floating_point_short.ipynb") == ""


@pytest.mark.slow
def test_chapter_4_runs_without_weights(edition):
    assert run(edition, "04_markov_short.ipynb") == ""


@pytest.mark.slow
def test_a_notebook_that_needs_weights_or_a_thread_would_be_noticed(edition):
    for line, said in {
        "minikv.load(7)": "FetchError",
        "import safetensors": "safetensors",
        "import threading; threading.Thread(target=int).start()": "a browser has none",
    }.items():
        source = [{"cell_type": "code", "source": text} for text in (short.PREPARED, line)]
        source[1]["source"] = f"import minikv\n{line}"
        (edition / "notebooks" / "wrong").write_text(json.dumps({"cells": source}))
        assert said in run(edition, "wrong")

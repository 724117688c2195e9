"""The chapters have one form: numbers, stars, predictions, a summary, references, solutions."""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("hypothesis", reason="needs the extra `notebooks`")

import build
import nbformat

from minikv.course.catalogue import Task, tasks_in

SOURCES = build.sources([])
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
LAST = ["What to take along", "References", "Exercises"]
TWO_SITTINGS = ("04", "08")
BARE_PAPER = re.compile(r"(?<!\[)arXiv\s\d{4}\.\d{5}")


@pytest.fixture(params=SOURCES, ids=[path.stem for path in SOURCES])
def source(request) -> Path:
    return request.param


@cache
def cells(source: Path) -> list[Any]:
    return build.read(source).cells


def prose(source: Path) -> str:
    return "\n\n".join(c.source for c in cells(source) if c.cell_type == "markdown")


def asked(source: Path) -> list[Task]:
    return tasks_in(source.name[:2], [(cell.cell_type, cell.source) for cell in cells(source)])


def test_sections_are_numbered_and_every_chapter_ends_alike(source):
    titles = SECTION.findall(prose(source))
    chapter = int(source.name[:2])
    assert titles[-3:] == LAST
    numbers = [title.partition(" ")[0] for title in titles[:-3]]
    assert numbers == [f"{chapter}.{number + 1}" for number in range(len(numbers))]


def test_what_is_to_be_written_is_numbered_and_stars_of_exercises_ascend(source):
    chapter = int(source.name[:2])
    titles = [task.title for task in asked(source)]
    for kind in ("Write", "Exercise"):
        own = [title for title in titles if title.startswith(kind)]
        heads = [title.partition(": ")[0] for title in own]
        assert heads == [f"{kind} {chapter}.{number + 1}" for number in range(len(own))]
    assert all(title.startswith(("Write ", "Exercise ")) for title in titles)
    stars = [task.stars for task in asked(source) if task.title.startswith("Exercise")]
    assert stars == sorted(stars)


def test_minutes_add_up_to_those_at_the_head(source):
    text = prose(source)
    exercises = sum(task.minutes for task in asked(source) if task.title.startswith("Exercise"))
    assert re.search(rf"\b{exercises}\s(of\sthem\s)?for\sthe\sexercises", text), exercises


def test_solutions_are_folded_at_the_end(source):
    *_, solutions, _ = cells(source)
    assert solutions.source.startswith("<details><summary>Solutions</summary>")
    assert f"(solutions/s{source.name[:2]}.py)" in solutions.source


def test_papers_are_links_and_words_are_in_the_glossary(source):
    text = prose(source)
    assert not BARE_PAPER.search(text)
    assert "[glossary](../docs/glossary.md)" in text.partition("## References")[2]


def test_a_paper_that_is_no_link_is_noticed():
    assert BARE_PAPER.search("as Su et al. (arXiv 2104.09864) do")
    assert not BARE_PAPER.search("[arXiv 2104.09864](https://arxiv.org/abs/2104.09864)")


def test_long_chapters_have_a_rest(source):
    text = prose(source)
    assert ("**A rest.**" in text) == (source.name[:2] in TWO_SITTINGS)
    assert ("in two sittings" in " ".join(text.split())) == (source.name[:2] in TWO_SITTINGS)


def test_cells_that_draw_are_folded(source):
    for cell in cells(source):
        if cell.cell_type == "code" and re.search(
            r"^figure, .*subplots", cell.source, re.MULTILINE
        ):
            assert cell.metadata["jupyter"] == {"source_hidden": True}, cell.source


@pytest.mark.parametrize(
    ("check", "given"), [("e04.two_texts", (None, [1])), ("e07.rules", (None,))]
)
def test_none_in_place_of_an_answer_is_told_so(check, given, capsys):
    module, name = check.split(".")
    assert not getattr(importlib.import_module(f"exercises.{module}"), f"check_{name}")(*given)
    assert "None where your answer should be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        ("(minikv 0.1.0, numpy 2.2.0, python 3.11.2; found by minikv conform)", False),
        ("(minikv 0.1.1, numpy 2.4.6, python 3.11.7; found by minikv conform)", True),
        ("(minikv 0.1.0, numpy 2.4.6, python 3.11.7; found by someone)", True),
    ],
)
def test_which_python_and_numpy_ran_a_chapter_does_not_count_and_all_else_does(other, counts):
    printed = "(minikv 0.1.0, numpy 2.4.6, python 3.11.7; found by minikv conform)"
    now, before = (
        nbformat.v4.new_notebook(
            cells=[
                nbformat.v4.new_code_cell(
                    "print(report)", outputs=[nbformat.v4.new_output("stream", text=text)]
                )
            ]
        )
        for text in (other, printed)
    )
    assert (build.texts(now) != build.texts(before)) == counts

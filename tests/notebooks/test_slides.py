"""Slides: what is on them is the chapter's, and none holds more than a browser has room for."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("mdit_py_plugins", reason="needs the extra `slides`")
pytest.importorskip("latex2mathml", reason="needs the extra `slides`")

import build
import nbformat
import slides
from lecturer import deck, notes

sys.path.insert(0, str(Path(__file__).parents[1] / "site"))

from browser import CHROMIUM, visit

SOURCES = build.sources([])
MEASURE = Path(__file__).with_name("slides.html")


slides_of = functools.cache(slides.slides_of)


def text(source: str) -> Any:
    return nbformat.v4.new_markdown_cell(source)


def code(source: str, printed: str = "") -> Any:
    outputs = [nbformat.v4.new_output("stream", text=printed)] if printed else []
    return nbformat.v4.new_code_cell(source, outputs=outputs)


CHAPTER = [
    text("# 1. A chapter\n\nAfter it you know.\n\n*Time*: 5 minutes."),
    code("import numpy as np"),
    text(
        "## 1.1 Sums\n\nThe first sentence is long enough to stand alone on a slide, as one that "
        "says what the paragraph is about does. The second is for the notes. **Bold** is shown.\n\n"
        "$$a + b$$\n\n**Predict before you run.** How many?\n\n"
        "<details><summary>Answer</summary>Two.</details>"
    ),
    code("print(1 + 1)", "2\n"),
    text("### Write 1: it (one star, 5 minutes)\n\nGive two.\n"),
    code("def two():\n    return None\n\n\n_ = e01.check_two(two)", "Not yet: ...\n"),
    text("## Exercises\n\n### 1. Three (one star, 5 minutes)\n\nGive three."),
    code("def three(): ...\n\n\n_ = e01.check_three(three)", "Not yet: ...\n"),
]


def made(cells: list[Any], said: notes.Notes | None = None) -> list[deck.Slide]:
    return deck.Maker("01", said or notes.Notes()).deck(cells)


def test_a_slide_has_key_sentences_and_its_notes_the_whole_text():
    sums = made(CHAPTER)[1]
    shown = " ".join(sums.parts)
    assert sums.title == "1.1 Sums"
    assert "The first sentence" in shown
    assert "<strong>Bold</strong>" in shown
    assert "<math" in shown
    assert "for the notes" not in shown
    assert "for the notes" in " ".join(sums.notes)


def test_code_stands_with_what_it_printed_and_stubs_without_their_check():
    kinds = [slide.kind for slide in made(CHAPTER)]
    assert kinds == ["title", "text", "predict", "text", "write", "list"]
    *_, predict, run, write, exercises = made(CHAPTER)
    assert 'class="answer fragment"' in predict.parts[1]
    assert [part[:17] for part in run.parts] == ['<pre class="code"', '<pre class="outpu']
    assert "check_two" not in "".join(write.parts)
    assert exercises.parts == ["<ul><li>1. Three (one star, 5 minutes)</li></ul>"]


def test_a_heading_within_a_section_is_no_task():
    cells = [*CHAPTER[:3], text("### A rest\n\nGo out."), *CHAPTER[3:]]
    found = [(slide.title, slide.kind) for slide in made(cells)]
    assert ("A rest", "text") in found
    assert sum(kind == "write" for _, kind in found) == 1


def test_notes_choose_other_sentences_and_miss_those_that_are_gone():
    said = notes.Notes(board={"Sums": "Draw it."}, show={"Sums": ["The second"]})
    sums = made(CHAPTER, said)[1]
    assert "for the notes" in sums.parts[0]
    assert "The first" not in sums.parts[0]
    assert "Draw it." in sums.notes[0]
    gone = notes.Notes(show={"Sums": ["The third"]})
    with pytest.raises(SystemExit, match="no sentence under 'Sums' begins with 'The third'"):
        made(CHAPTER, gone)


@pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])
def test_every_section_picture_plot_and_question_of_a_chapter_is_on_a_slide(source):
    found = slides_of(source)
    cells = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
    chapter = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    asked = chapter.partition("\n## Exercises")[0]
    titles = {slide.title for slide in found}
    for line in asked.split("\n"):
        if line.startswith("## "):
            assert deck.inline(line.removeprefix("## ")) in titles
    kinds = [slide.kind.split()[0] for slide in found]
    assert kinds.count("predict") == asked.count("**Predict before you run.**")
    assert kinds.count("picture") == asked.count("](pictures/")
    plots = [
        o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert kinds.count("plot") == len(plots)
    assert all(slide.parts for slide in found)


def test_each_day_begins_with_slides_that_there_are_and_has_its_homework():
    sections = {source.stem: slides.page(slides_of(source), 0)[1] for source in SOURCES}
    listed = slides.days(sections)
    rows = re.findall(r"<tr><td>(\d+)</td><td>(.*?)</td><td>(.*?)</td></tr>", listed)
    assert [int(day) for day, _, _ in rows] == list(range(1, 11))
    assert all(homework for _, _, homework in rows)
    for _, session, _ in rows:
        link = re.search(r'href="(\w+)\.html#/(.*?)"', session)
        assert link is not None, session
        assert link[2] in {"", *(at for _, at in sections[link[1]])}


def needed(condition: bool, what: str) -> None:
    """Skip without, except in CI, where all is there."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> list[dict[str, Any]]:
    """What the browser measures of all decks."""
    needed(CHROMIUM is not None, "Chromium (Debian: apt-get install chromium)")
    needed(bool(slides.importlib.util.find_spec("sphinx_revealjs")), "the extra `slides`")
    folder = tmp_path_factory.mktemp("slides")
    slides.write(SOURCES, folder)
    first = (folder / "00_before.html").read_text(encoding="utf-8")
    crowded = first.replace(
        "<h1>", '<p style="height: 900px; width: 1400px; font-size: 9px">x</p><h1>'
    )
    assert crowded != first
    (folder / "crowded.html").write_text(crowded, encoding="utf-8")
    names = [f"{source.stem}.html" for source in SOURCES]
    query = f"decks={','.join([*names, 'crowded.html'])}"
    profile = tmp_path_factory.mktemp("profile")
    beside = {"/measure.html": MEASURE}
    answer, address = visit(folder, f"/measure.html?{query}", profile, beside)
    for each in answer:
        each["outside"] = [
            name for name in each["resources"] if not name.startswith((address, "data:"))
        ]
    return answer


def too_large(one: dict[str, Any]) -> list[str]:
    """Slides whose content ends below or right of the slide's edge."""
    return [
        f"{one['deck']}: {slide['title']} ends at {slide['right']:.0f} x {slide['bottom']:.0f}"
        for slide in one["slides"]
        if slide["bottom"] > 714 or slide["right"] > 1280 - 30
    ]


def illegible(one: dict[str, Any]) -> list[str]:
    """Slides with letters of less than 17 pixels, or a picture that is small or has no words."""
    return [
        f"{one['deck']}: {slide['title']} {slide['letters']} {slide['images']}"
        for slide in one["slides"]
        if slide["letters"] < 17
        or any(
            not image["loaded"]
            or (image["height"] < 300 and image["width"] < 700)
            or len(image["alt"].split()) < 2
            for image in slide["images"]
        )
    ]


@pytest.mark.browser
def test_no_slide_is_higher_or_wider_than_a_slide(seen):
    *decks, crowded = seen
    assert [one["scale"] for one in seen] == [1] * 13
    assert len(too_large(crowded)) == 1
    assert [line for one in decks for line in too_large(one)] == []


@pytest.mark.browser
def test_letters_and_pictures_can_be_read(seen):
    *decks, crowded = seen
    assert len(illegible(crowded)) == 1
    assert [line for one in decks for line in illegible(one)] == []
    assert sum(len(slide["images"]) for one in decks for slide in one["slides"]) > 40


@pytest.mark.browser
def test_nothing_comes_from_the_network_and_the_speaker_has_notes(seen):
    assert [one["outside"] for one in seen if one["outside"]] == []
    for one in seen:
        assert one["speaker"]
        assert sum(slide["notes"] > 100 for slide in one["slides"]) > 4, one["deck"]

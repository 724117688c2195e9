"""Notes for the lecturer: one file a chapter, whose sections, mistakes and days all exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")

import build
from lecturer import notes

SOURCES = build.sources([])
HERE = Path(__file__).parent
README = build.HERE / "README.md"
FILE = re.compile(r"\(`(test_\w+\.py)`\)")
WITHOUT = {"What to take along", "References", "Exercises"}


@pytest.fixture(params=SOURCES, ids=[path.stem for path in SOURCES])
def chapter(request) -> Path:
    return request.param


def sections(chapter: Path) -> list[str]:
    """The sections of a chapter, without numbers."""
    found = re.findall(r"^# ## (.+)$", chapter.read_text(encoding="utf-8"), re.MULTILINE)
    return [notes.without_number(heading) for heading in found]


def test_the_notes_are_about_sections_that_the_chapter_has(chapter):
    said = notes.read(chapter.name[:2])
    there = sections(chapter)
    assert set(said.board) <= set(there)
    assert len(set(there) - WITHOUT - set(said.board)) <= 1, "more than one section has no notes"
    assert set(said.parts) == {"Typical mistakes", "Homework"}
    assert set(said.minutes) == set(said.board)


def test_the_minutes_are_those_of_the_syllabus(chapter):
    number = int(chapter.name[:2])
    row = re.search(rf"^\| {number} \|.*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    cells = [cell.strip() for cell in row[0].split("|")]
    reading = next(int(cell) for cell in cells[4:] if cell.isdecimal())
    assert sum(notes.read(chapter.name[:2]).minutes.values()) == reading


def explained(file: Path) -> set[tuple[str, str]]:
    """Check and words of each mistake that a test file has, in tuples that end with the words."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Tuple) or len(node.elts) < 3:
            continue
        check = node.elts[0]
        words = node.elts[-1]
        if not isinstance(words, ast.Constant):
            continue
        if isinstance(check, ast.Attribute):
            found.add((check.attr.removeprefix("check_"), words.value))
        elif isinstance(check, ast.Constant):
            found.add((str(check.value), words.value))
    return found


def named(text: str) -> list[tuple[str, str, str]]:
    """Test file, check and words of each mistake that notes name."""
    out = []
    for item in re.split(r"^\* ", text, flags=re.MULTILINE)[1:]:
        file = FILE.search(item)
        said = re.findall(r"`check_(\w+)`\s+says\s+\"([^\"]+)\"", item)
        assert file is not None, f"no test is named: {item}"
        assert said, f"no words of a check are named: {item}"
        out += [(file[1], check, " ".join(words.split())) for check, words in said]
    return out


def test_each_typical_mistake_is_one_that_a_test_makes(chapter):
    found = named(notes.read(chapter.name[:2]).parts["Typical mistakes"])
    assert len(found) >= 5
    for file, check, words in found:
        assert (check, words) in explained(HERE / file), f"{file} has no {check}: {words!r}"


def test_a_mistake_that_no_test_makes_would_be_seen():
    assert ("attention", "causal mask") in explained(HERE / "test_write.py")
    assert ("attention", "the mask is missing") not in explained(HERE / "test_write.py")
    with pytest.raises(AssertionError, match="no test is named"):
        named("* Something goes wrong.")


def test_there_is_homework_for_every_day_of_the_plan():
    plan = README.read_text(encoding="utf-8").partition("## Two weeks")[2].partition("\n## ")[0]
    days = {int(day) for day in re.findall(r"^\| (\d+) \|", plan, re.MULTILINE)}
    asked = [notes.read(source.name[:2]).parts["Homework"] for source in SOURCES]
    given = {int(day) for text in asked for day in re.findall(r"Before day (\d+):", text)}
    assert given == days == set(range(1, 11))


def test_homework_names_exercises_that_the_chapter_has(chapter):
    text = chapter.read_text(encoding="utf-8").partition("# ## Exercises")[2]
    there = [
        int(number) for number in re.findall(r"^# ### Exercise \d+\.(\d+): ", text, re.MULTILINE)
    ]
    homework = notes.read(chapter.name[:2]).parts["Homework"]
    numbers = re.findall(r"[Ee]xercises? ([\d., to]+|\d[\d., and]+)", homework)
    each = [number for found in numbers for number in re.findall(r"\d+\.\d+|\d+", found)]
    assert {int(number.rpartition(".")[2]) for number in each} <= set(there)

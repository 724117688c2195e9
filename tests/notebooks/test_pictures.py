"""The pictures of the course are those that the library's names and numbers make."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")

import build
import pictures

SVG = "{http://www.w3.org/2000/svg}"
SHOWN = re.compile(r"!\[([^\]]*)\]\(pictures/(\w+)\.svg\)")


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_the_picture_is_drawn_as_the_library_is(name):
    kept = (pictures.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert kept == pictures.PICTURES[name]().svg(), "run  python notebooks/pictures.py"


def test_the_block_shows_every_activation_once_with_its_shape():
    shown, known = words(pictures.block().svg()), pictures.activations()
    assert sorted(word for word in shown if "hook" in word) == sorted(known)
    for name, shape in known.items():
        assert shown[shown.index(name) + 1] == shape


def test_a_name_that_the_library_does_not_have_is_noticed(monkeypatch):
    known = pictures.activations()
    renamed = {name.replace("hook_z", "hook_zz"): shape for name, shape in known.items()}
    monkeypatch.setattr(pictures, "activations", lambda: renamed)
    with pytest.raises(KeyError, match="hook_z"):
        pictures.block()


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_letters_are_large_and_nothing_lies_outside(name):
    svg = pictures.PICTURES[name]().svg()
    sizes = [int(size) for size in re.findall(r"(?:font:|font-size:) (\d+)px", svg)]
    assert min(sizes) >= 16  # of a width of 640: 9 on a telephone of 390
    root = ElementTree.fromstring(svg)
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    for box in root.iter(f"{SVG}rect"):
        x, y, wide, high = (float(box.get(key, "0")) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height


def test_each_picture_is_shown_in_a_chapter_with_its_words():
    shown = {}
    for source in build.sources([]):
        text = source.read_text(encoding="utf-8").replace("\n# ", " ")
        shown |= {name: alt for alt, name in SHOWN.findall(text)}
    assert set(shown) == set(pictures.PICTURES)
    for name, alt in shown.items():
        assert alt == pictures.PICTURES[name]().alt


def test_every_chapter_predicts_sums_up_and_leads_on():
    sources = build.sources([])
    for number, source in enumerate(sources):
        text = source.read_text(encoding="utf-8")
        assert text.count("**Predict before you run.**") >= 1, source.name
        assert text.count("<details><summary>Answer</summary>") == text.count("**Predict before")
        assert text.index("## What to take along") < text.index("## Exercises"), source.name
        last = text.rpartition("# %% [markdown]")[2].replace("\n# ", " ")
        around = [sources[at] for at in (number - 1, number + 1) if 0 <= at < len(sources)]
        for other in around:
            assert f"]({other.stem}.ipynb)" in last, source.name

"""The cheat sheet: one page, of what the library says of itself today."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("jupytext", reason="needs the extra `notebooks`")
pytest.importorskip("mdit_py_plugins", reason="needs the extra `slides`")
pytest.importorskip("latex2mathml", reason="needs the extra `slides`")

import cheatsheet
import slides

from minikv.shapes import per_token, shape
from minikv.verify import THEOREMS


def test_the_pdf_is_one_page_and_that_of_today():
    title, pages = cheatsheet.printed(cheatsheet.PDF.read_bytes())
    assert pages == 1
    advice = "run  python notebooks/cheatsheet.py"
    assert title == cheatsheet.title(cheatsheet.page()), advice


def test_other_facts_give_another_title(monkeypatch):
    before = cheatsheet.title(cheatsheet.page())
    monkeypatch.setitem(cheatsheet.MADE, "sizes", lambda: "")
    assert cheatsheet.title(cheatsheet.page()) != before


def test_it_has_all_theorems_and_sizes_that_the_library_counts():
    page = cheatsheet.page()
    assert all(f"<td>{name}</td>" in page for name in THEOREMS)
    for name in cheatsheet.SIZES:
        told = per_token(shape(name))
        for what in ("full_kv", "one_residual", "residual_per_layer"):
            assert f">{told[what]['bfloat16']:,}<" in page, (name, what)
    assert "{{" not in page


@pytest.mark.browser
def test_larger_letters_would_take_two_pages(tmp_path, monkeypatch):
    """The count of pages can be wrong: a control, and the page anew."""
    if not any(map(slides.shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Chromium")
    small = cheatsheet.page()
    large = small.replace("font: 8pt", "font: 10pt")
    assert large != small
    counts = []
    for name, text in (("small", small), ("large", large)):
        page = tmp_path / f"{name}.html"
        pdf = tmp_path / f"{name}.pdf"
        page.write_text(text, encoding="utf-8")
        slides.print_pdf(slides.browser(), page.as_uri(), pdf)
        counts.append(cheatsheet.printed(pdf.read_bytes())[1])
    assert counts == [1, 2]


@pytest.mark.browser
def test_a_chapter_prints_a_slide_a_page(tmp_path):
    if not slides.importlib.util.find_spec("sphinx_revealjs"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs the extra `slides`")
    source = slides.build.sources(["00"])
    slides.write(source, tmp_path)
    page = tmp_path / "00_before.html"
    text = page.read_text(encoding="utf-8")
    shown, with_notes = text.count("<section"), text.count("<aside")
    counts = []
    for query in ("", "?notes"):
        pdf = tmp_path / "printed.pdf"
        slides.print_pdf(slides.browser(), page.as_uri() + query, pdf)
        counts.append(cheatsheet.printed(pdf.read_bytes())[1])
    assert counts[0] == shown
    assert counts[1] >= shown + with_notes > shown

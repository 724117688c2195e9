"""The built site in a browser: links, widths, search, formulas, pictures and both themes.

Needs Chromium, and the site: ``python docs/build.py && python -m pytest -m browser``.
"""

from __future__ import annotations

import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, look

import minikv

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
SEARCH = "search.html?q=residual"
ARXIV = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{5})")
PHONE, DESK = 390, 1400

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def site() -> Path:
    """The folder of the built site; skipped without it, or without Chromium, except in CI."""
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    if CHROMIUM is None:
        missing("needs Chromium (Debian: apt-get install chromium)")
    if not (SITE / "index.html").exists():
        missing("needs the site: run  python docs/build.py")
    return SITE


def seen(site: Path, width: int, profile: Path) -> list[Page]:
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    own = ("lite/", "slides/")  # JupyterLite's pages; slides have tests of their own
    pages = [page for page in pages if not page.startswith(own)]
    assert len(pages) > 20
    return look(site, [*pages, SEARCH], width, profile)


@pytest.fixture(scope="module")
def phone(site, tmp_path_factory) -> list[Page]:
    return seen(site, PHONE, tmp_path_factory.mktemp("phone"))


@pytest.fixture(scope="module")
def desk(site, tmp_path_factory) -> list[Page]:
    return seen(site, DESK, tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> list[Page]:
    """A site on which everything is wrong: what the tests below must see."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "index.html").write_text(
        "<!doctype html><body><article>"
        "<p style='color: #777; background: #666; width: 2000px'>arXiv 1234.56789</p>"
        "<a href='gone.html'>x</a> <a href='#gone'>y</a> <a href='index.html#here'>z</a>"
        "<i id='here'></i><img src='gone.png'>"
        f"<div class='highlight-python'><pre style='overflow: auto; width: 99px'>{'x' * 99}</pre>"
        "</div><math style='display: none'><mi>x</mi></math>"
        "<math><msub><mi>h</mi><mi style='transform: translateY(-9px)'>l</mi></msub></math>"
        "</article>"
    )
    return look(folder, ["index.html"], PHONE, tmp_path_factory.mktemp("profile"))


def broken_links(pages: list[Page], site: Path | None = None) -> set[str]:
    """Links within the site to a file or an anchor that is not there."""
    ids = {page["page"].partition("?")[0]: set(page["ids"]) for page in pages}
    broken = set()
    for page in pages:
        for link in page["links"]:
            if not link.startswith(page["base"]):
                continue
            parts = urllib.parse.urlsplit(link)
            path = urllib.parse.unquote(parts.path).lstrip("/") or "index.html"
            there = path in ids or (site is not None and (site / path).is_file())
            anchor = urllib.parse.unquote(parts.fragment)
            if not there or (anchor and path in ids and anchor not in ids[path]):
                broken.add(f"{page['page']}: {path}#{anchor}")
    return broken


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2.2)."""
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def undescribed(pages: list[Page]) -> list[str]:
    """Pictures that did not load, or that have no words for who cannot see them."""
    return [
        f"{page['page']}: {image['src']}"
        for page in pages
        for image in page["images"]
        if not image["loaded"] or len(image["alt"].split()) < 2
    ]


def unlinked(pages: list[Page]) -> set[str]:
    """Papers that a page names and that nothing on the site leads to."""
    linked = {link for page in pages for link in page["links"]}
    named = {number for page in pages for number in ARXIV.findall(page["text"])}
    return {number for number in named if f"https://arxiv.org/abs/{number}" not in linked}


def invisible(pages: list[Page]) -> list[str]:
    """Pages with a formula that takes no room."""
    return [page["page"] for page in pages if any(height < 5 for height in page["formulas"])]


def on_the_line(pages: list[Page]) -> list[str]:
    """Pages with a subscript that does not hang, in pixels, below the letter h before it."""
    return [page["page"] for page in pages if any(below < 1 for below in page["lowered"])]


def scrolling(pages: list[Page]) -> list[str]:
    """Pages that are wider than the window."""
    return [page["page"] for page in pages if page["width"] > page["window"]]


def test_the_tests_see_what_is_wrong(faulty):
    assert broken_links(faulty) == {"index.html: gone.html#", "index.html: index.html#gone"}
    assert scrolling(faulty) == invisible(faulty) == on_the_line(faulty) == ["index.html"]
    assert undescribed(faulty) == ["index.html: gone.png"]
    assert unlinked(faulty) == {"1234.56789"}
    assert [len(page["cut"]) for page in faulty] == [1]
    assert contrast("rgb(119, 119, 119)", "rgb(102, 102, 102)") < 1.5
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == 21


def test_no_link_or_anchor_is_broken(desk, site):
    assert sum(len(page["links"]) for page in desk) > 1000
    assert broken_links(desk, site) == set()


def test_no_page_scrolls_sideways_on_a_phone(phone):
    assert scrolling(phone) == []


def test_no_code_is_cut_on_a_desk(desk, phone):
    assert any(page["cut"] for page in phone), "code of 100 characters does not fit a phone"
    assert {page["page"]: page["cut"] for page in desk if page["cut"]} == {}


def test_search_finds_residual(desk):
    results = desk[-1]["results"]
    assert len(results) > 5
    assert any("residual" in result.lower() for result in results)


def test_formulas_are_drawn_and_nothing_comes_from_the_network(desk):
    formulas = {page["page"]: len(page["formulas"]) for page in desk}
    assert formulas["theorems.html"] > 50
    assert invisible(desk) == []
    assert sum(len(page["lowered"]) for page in desk) > 10
    assert on_the_line(desk) == [], "is a font with mathematical tables there (fonts-dejavu)?"
    assert {name for page in desk for name in page["resources"]} != set()
    outside = {
        name for page in desk for name in page["resources"] if not name.startswith(page["base"])
    }
    assert outside == set()


def test_no_formula_shows_a_command_of_tex(site):
    formulas = re.compile(r"<math.*?</math>", re.DOTALL)
    shown = [
        formula for path in site.glob("*.html") for formula in formulas.findall(path.read_text())
    ]
    assert len(shown) > 200
    assert [formula for formula in shown if re.search(r">[^<]*\\[a-zA-Z]", formula)] == []


def test_every_picture_loads_and_has_words(desk):
    assert sum(len(page["images"]) for page in desk) > 30
    assert undescribed(desk) == []


def test_every_page_names_its_source_and_the_version(site):
    chapter = (site / "05_kv_direct.html").read_text(encoding="utf-8")
    assert f"<code>notebooks/05_kv_direct.py</code>, minikv {minikv.__version__}" in chapter
    for path in site.glob("*.html"):
        made = path.stem in ("genindex", "search")
        found = re.search(r'class="page-source">.*?<code>(.+?)</code>', path.read_text(), re.DOTALL)
        assert (found is None) == made, path.name
        assert made or (site.parents[2] / found[1]).is_file(), path.name


def test_signatures_name_types_as_the_source_does(desk):
    wrong = [page["page"] for page in desk if "ForwardRef" in page["text"]]
    assert wrong == []


def test_every_paper_that_is_named_is_linked(desk):
    assert unlinked(desk) == set()


def test_the_atlas_is_filtered_without_a_server(site):
    """The words of the address are those of the filter; without any, all rows are there."""
    shown = []
    for words in ("", "?q=evicting%20t9", "?q=no-such-word"):
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        page = subprocess.run(
            [*command, (site / "atlas.html").as_uri() + words], capture_output=True, text=True
        ).stdout
        table = page[page.index('class="atlas') :].partition("</table>")[0]
        rows = re.findall(r"<tr class=[^>]*>", table.partition("<tbody>")[2])
        shown.append(sum(' hidden=""' not in row for row in rows))
    assert shown[0] == 65
    assert 5 < shown[1] < 20
    assert shown[2] == 0


def themes(pages: list[Page]) -> Iterator[tuple[str, str, dict[str, str]]]:
    for page in pages:
        for theme, colours in page["themes"].items():
            yield page["page"], theme, colours


def test_both_themes_can_be_read(desk):
    """WCAG 2.2, level AA: 4.5 for text (1.4.3), 3 for what a picture shows (1.4.11)."""
    papers = {theme: colours["paper"] for _, theme, colours in themes(desk)}
    assert luminance(papers["dark"]) < 0.1 < luminance(papers["light"])
    home = next(page for page in desk if page["page"] == "index.html")
    for _, theme, colours in themes([home]):
        for part, least in {"text": 4.5, "picture": 4.5, "kept": 3, "again": 3}.items():
            assert contrast(colours[part], colours["paper"]) >= least, (theme, part)


def test_plots_are_dark_in_the_dark_theme(desk):
    filters = [(theme, look["plots"]) for _, theme, look in themes(desk) if look["plots"]]
    assert len(filters) > 10
    assert all((filter == "none") == (theme == "light") for theme, filter in filters)

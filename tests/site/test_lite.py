"""Chapters in JupyterLite: the built edition has what they read, and opens, without network.

That they run is tested in ``tests/notebooks/test_short.py``; Pyodide, on which they run in a
browser, cannot be had here. Needs the site, built with the extra ``lite``, and Chromium.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import lite_site
import proof_page
import pytest
from browser import CHROMIUM, visit

HERE = Path(__file__).parent
SITE = HERE.parents[1] / "docs" / "_build" / "html"
LITE = SITE / "lite"
CHAPTER = "07_counterexamples.ipynb"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def lite() -> Path:
    """The folder of the edition; skipped without, except in CI."""
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    if not LITE.exists():
        missing(lite_site.WITHOUT.format(missing=", ".join(lite_site.missing()) or "a new build"))
    return LITE


def test_the_edition_holds_every_file_that_was_laid_out(tmp_path):
    lite_site.lay_out(tmp_path)
    laid = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(laid) > 20
    for path in laid:
        assert (LITE / "files" / path).read_bytes() == (tmp_path / path).read_bytes(), path


def test_the_edition_lists_its_notebooks():
    listed = json.loads((LITE / "api" / "contents" / "notebooks" / "all.json").read_text())
    names = [item["name"] for item in listed["content"] if item["type"] == "notebook"]
    assert sorted(names) == sorted(path.name for path in (LITE / "files/notebooks").glob("*.ipynb"))
    links = re.findall(r'href="lite/lab/index\.html\?path=notebooks/(.+?)"', page())
    assert links == sorted(names)


def page() -> str:
    return (SITE / "proof.html").read_text(encoding="utf-8")


def test_the_kernel_takes_the_pyodide_of_the_page():
    extension = LITE / "extensions" / "@jupyterlite" / "pyodide-kernel-extension" / "static"
    scripts = "".join(path.read_text(encoding="utf-8") for path in extension.glob("*.js"))
    assert set(re.findall(r"/pyodide/v([\d.]+)/", scripts)) == {proof_page.version()}
    assert f"version {proof_page.version()}," in page()


def test_a_chapter_opens_from_the_site_without_network(tmp_path):
    if CHROMIUM is None:
        pytest.fail("needs Chromium (Debian: apt-get install chromium)")
    title = "Where the claim fails"
    lab = f"/lite/lab/index.html?path=notebooks/{CHAPTER}"
    query = f"page={quote(lab)}&of=.jp-Notebook&text={quote(title)}"
    (tmp_path / "profile").mkdir()
    beside = {"/open.html": HERE / "open.html"}
    answer, address = visit(SITE, f"/open.html?{query}", tmp_path / "profile", beside)
    assert title in answer["text"]
    assert "%pip install -q hypothesis matplotlib" in answer["text"]
    outside = [name for name in answer["resources"] if not name.startswith(address)]
    assert all("/pyodide/" in name for name in outside), outside

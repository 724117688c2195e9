"""Chapters for JupyterLite, which has no weights: 7 and 8 as they are, 3 and 4 in a short version.

    python notebooks/short.py FOLDER    # write them; docs/build.py puts them on the site

A short version is its chapter less what needs SmolLM2: a small random model takes its place
(`small.py`), and sections and paragraphs that speak of SmolLM2 are left out. They are named below
by how they begin; one that is no longer there fails the build.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import build
import nbformat

WHOLE = ("07", "08")
PREPARED = """\
# In the browser: the packages from Pyodide and PyPI, minikv from this site.
%pip install -q hypothesis matplotlib
import shutil, sys
sys.path[:0] = [shutil.copy("../minikv.zip", "/tmp"), "."]"""
NOTE = """\
**Short version, for the browser.** A random model of 30 blocks takes the place of SmolLM2, and
what the chapter says about SmolLM2 is left out. The whole chapter is on the site, and runs with
weights on your own machine."""


@dataclass(frozen=True)
class Short:
    """What of a chapter is left out, and what stands in its place.

    Parameters
    ----------
    sections : tuple of str
        Headings; a section ends at the next one.
    paragraphs : tuple of str
        How paragraphs begin.
    instead : dict
        Code, and the code in its place.
    """

    sections: tuple[str, ...] = ()
    paragraphs: tuple[str, ...] = ()
    instead: dict[str, str] = field(default_factory=dict)


def loaded(arithmetic: str) -> dict[str, str]:
    """The small model, instead of SmolLM2 in an arithmetic."""
    return {f'minikv.load("smollm2-135m-instruct", "{arithmetic}")': f'small_model("{arithmetic}")'}


SHORT = {
    "03": Short(
        sections=("3.4 Thirty layers later", "3.7 What else could differ"),
        paragraphs=(
            "*Time*:",
            "We take one number that SmolLM2 really computes",
            "On the left the weights are too coarse",
            "The *fingerprint* of a model's answer",
            "One changed bit in one of these",
            "What you have seen is a test on some machines",
        ),
        instead=loaded("float32")
        | {"prompt = exact_model": 'exact_model = small_model("exact")\nprompt = exact_model'},
    ),
    "04": Short(
        sections=("4.5 One position at a time", "4.6 Across tasks"),
        paragraphs=(
            "*Time*:",
            "The recipient was about to tell of a girl",
            "The blue line is at 0",
        ),
        instead=loaded("exact"),
    ),
}


class Cutter:
    """Cuts a chapter; every text that it was told of has to turn up.

    Parameters
    ----------
    chapter : str
    short : Short
    """

    def __init__(self, chapter: str, short: Short) -> None:
        self.chapter = chapter
        self.short = short
        self.left = {*short.sections, *short.paragraphs, *short.instead}
        self.skipping = False  # a section

    def prose(self, text: str) -> str:
        """A cell of Markdown without what is left out."""
        kept = []
        for paragraph in text.split("\n\n"):
            if paragraph.startswith("#"):
                heading = paragraph.partition("\n")[0].lstrip("# ")
                self.skipping = self._known(heading, self.short.sections)
            if not self.skipping and not self._begins(paragraph):
                kept.append(paragraph)
        return "\n\n".join(kept)

    def code(self, text: str) -> str:
        """A cell of code without what is left out."""
        if self.skipping:
            return ""
        for old, new in self.short.instead.items():
            if old in text:
                self.left.discard(old)
                text = text.replace(old, new)
        return text

    def check(self) -> None:
        """Fail where a text did not turn up."""
        if self.left:
            raise SystemExit(
                f"notebooks/short.py: chapter {self.chapter} has no {sorted(self.left)[0]!r}: "
                "say anew what its short version leaves out"
            )

    def _begins(self, paragraph: str) -> bool:
        found = [start for start in self.short.paragraphs if paragraph.startswith(start)]
        return any(self._known(start, (start,)) for start in found)

    def _known(self, text: str, texts: Sequence[str]) -> bool:
        self.left.discard(text)
        return text in texts


def shortened(source: Path, short: Short) -> Any:
    """The short version of a chapter, without outputs."""
    notebook = build.read(source)
    cutter = Cutter(source.stem, short)
    kept = []
    for cell in notebook.cells:
        cut = cutter.code if cell.cell_type == "code" else cutter.prose
        cell["source"] = cut(cell.source)
        if cell.source.strip():
            kept.append(cell)
    cutter.check()
    title, *rest = kept
    first = nbformat.v4.new_markdown_cell(NOTE, id="short")
    small = nbformat.v4.new_code_cell("from small import small_model", id="small")
    notebook.cells = [title, first, small, *rest]
    return notebook


def chapters() -> dict[str, Any]:
    """The notebooks of the edition, by the names of their files."""
    made = {}
    for source in build.sources([*SHORT, *WHOLE]):
        number = source.name[:2]
        if number in SHORT:
            made[f"{source.stem}_short.ipynb"] = shortened(source, SHORT[number])
        else:
            kept = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
            made[f"{source.stem}.ipynb"] = kept
    return made


def prepared(notebook: Any) -> Any:
    """A notebook whose first cell gets what it needs, in JupyterLite."""
    cell = nbformat.v4.new_code_cell(PREPARED, id="prepared")
    notebook.cells = [cell, *notebook.cells]
    return notebook


def write(folder: Path) -> None:
    """All of them, as JupyterLite takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, notebook in chapters().items():
        nbformat.write(prepared(notebook), folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write them")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()

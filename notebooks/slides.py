"""Slides of the chapters, for reveal.js: one page a chapter, which needs no network.

    python notebooks/slides.py --to DIR          # of all chapters, with a list of them
    python notebooks/slides.py 03 05 --to DIR    # of some
    python notebooks/slides.py --to DIR --pdf    # and a PDF of each, notes on pages of their own

The slides are made of the notebooks as they lie, nothing is run: headings, key sentences, formulas,
pictures, code, outputs and plots (`lecturer/deck.py`). In the browser, `S` opens the speaker's
window, which has the chapter's whole text and what `lecturer/notes/NN.md` says to a section; `Esc`
shows all slides. Needs the extras `notebooks` and `slides`, of which the second brings reveal.js.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import build
from lecturer import deck, notes

HERE = Path(__file__).parent

FILES = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes", "LICENSE")
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/dist/reset.css">
<link rel="stylesheet" href="reveal/dist/reveal.css" media="screen">
<link rel="stylesheet" href="slides.css">
<body>
<div class="reveal">
<div class="slides">
{slides}
</div>
<div class="foot">minikv, chapter {number} &middot; Apache 2.0</div>
</div>
<script src="reveal/dist/reveal.js"></script>
<script src="reveal/plugin/notes/notes.js"></script>
<script>
document.documentElement.classList.toggle("with-notes", location.search === "?notes");
Reveal.initialize({{
  width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t",
  transition: "none", controls: false, plugins: [RevealNotes],
}});
</script>
</body>
</html>
"""
LIST = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides of the course</title>
<link rel="stylesheet" href="slides.css">
<body class="list">
<h1>Slides of the course</h1>
<p>Arrow keys lead on, <kbd>Esc</kbd> shows all slides of a chapter, <kbd>S</kbd> opens the
speaker's window, <kbd>?</kbd> lists the other keys. A chapter prints as it is,
a slide a page; with <code>?notes</code> behind its address each slide's notes follow it.
Text and pictures are under the licence of the code, Apache 2.0.</p>
{days}
<h2>By chapter</h2>
<ol start="0">
{items}
</ol>
</body>
</html>
"""


def reveal() -> Path:
    """The folder of reveal.js in the package that brings it."""
    found = importlib.util.find_spec("sphinx_revealjs")
    places = found.submodule_search_locations if found else None
    if not places:
        raise SystemExit('reveal.js is not here: run  pip install -e ".[notebooks,slides]"')
    return Path(places[0]) / "_static" / "revealjs"


def anchor(title: str) -> str:
    """A name for the address of a slide.

    Examples
    --------
    >>> anchor("2.1 A sum of <i>sixty-one</i> parts")
    'a-sum-of-sixty-one-parts'
    """
    words = re.sub(r"<[^>]*>", "", notes.without_number(title)).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def slides_of(source: Path) -> list[deck.Slide]:
    """The slides of a chapter."""
    return deck.slides(source.with_suffix(".ipynb"), notes.read(source.name[:2]))


def page(made: list[deck.Slide], number: int) -> tuple[str, list[tuple[str, str]]]:
    """The page of a chapter's slides, and title and anchor of each of its sections."""
    parts: list[str] = []
    sections: list[tuple[str, str]] = []
    for slide in made:
        name = anchor(slide.title)
        known = {at for _, at in sections}
        if name in known or slide.kind == "write":
            name = ""
        else:
            sections.append((slide.title, name))
        mark = f' id="{name}"' if name else ""
        head = "h1" if slide.kind == "title" else "h2"
        said = f'<aside class="notes">{"".join(slide.notes)}</aside>' if slide.notes else ""
        body = "\n".join(slide.parts)
        parts.append(
            f'<section{mark} class="{slide.kind}">\n<{head}>{slide.title}</{head}>\n{body}\n{said}'
            "\n</section>"
        )
    title = html.escape(re.sub(r"<[^>]*>", "", made[0].title))
    return PAGE.format(title=title, slides="\n".join(parts), number=number), sections


def days(sections: dict[str, list[tuple[str, str]]]) -> str:
    """The plan of the course's page: each day with the slides that it begins with, and homework.

    Parameters
    ----------
    sections : dict
        By the name of a chapter's file, title and anchor of each of its sections.
    """
    text = (HERE / "README.md").read_text(encoding="utf-8").partition("## Two weeks")[2]
    homework: dict[int, list[str]] = {}
    for stem in sections:
        asked = notes.read(stem[:2]).parts.get("Homework", "")
        for day, what in re.findall(r"Before day (\d+): (.*?)(?=\n\* |\Z)", asked, re.DOTALL):
            homework.setdefault(int(day), []).append(
                f"chapter {int(stem[:2])}: {deck.inline(' '.join(what.split()))}"
            )
    rows = []
    for day, session in re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE):
        chapter, _, rest = session.partition(":")
        number = re.match(r"chapter (\d+)", chapter)
        name = next((n for n in sections if number and n.startswith(f"{int(number[1]):02}_")), None)
        shown = deck.inline(session)
        if name is not None:
            begun = anchor(rest.partition(",")[0].strip()) or "/"
            found = [at for _, at in sections[name] if at.startswith(begun)]
            shown = f'<a href="{name}.html#/{found[0] if found else ""}">{shown}</a>'
        before = "<br>".join(homework.get(int(day), []))
        rows.append(f"<tr><td>{day}</td><td>{shown}</td><td>{before}</td></tr>")
    head = "<tr><th>day</th><th>slides</th><th>before it</th></tr>"
    body = "\n".join([head, *rows])
    return f"<h2>By day</h2>\n<table>\n{body}\n</table>" if rows else ""


def write(sources: list[Path], target: Path) -> None:
    """The pages of these chapters, reveal.js, the pictures, and a list."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        origin, place = reveal() / name, target / "reveal" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, place, dirs_exist_ok=True)
        else:
            shutil.copy(origin, place)
    shutil.copytree(HERE / "pictures", target / "pictures", dirs_exist_ok=True)
    shutil.copy(HERE / "lecturer" / "slides.css", target)
    items = []
    found = {}
    for source in sources:
        text, sections = page(slides_of(source), int(source.name[:2]))
        (target / f"{source.stem}.html").write_text(text, encoding="utf-8")
        found[source.stem] = sections
        first, *rest = sections
        links = " &middot; ".join(
            f'<a href="{source.stem}.html#/{name}">{title}</a>' for title, name in rest
        )
        head = notes.without_number(first[0])
        items.append(f'<li><a href="{source.stem}.html">{head}</a><br><small>{links}</small></li>')
    (target / "index.html").write_text(
        LIST.format(days=days(found), items="\n".join(items)), encoding="utf-8"
    )


def print_pdf(chromium: str, address: str, target: Path) -> None:
    """A page as Chromium prints it."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    drawn = ["--virtual-time-budget=20000"]
    subprocess.run(
        [*command, *drawn, f"--print-to-pdf={target}", address], check=True, capture_output=True
    )


def browser() -> str:
    """Chromium, or a line that says that it is missing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise SystemExit("a PDF needs Chromium (Debian: apt-get install chromium)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("numbers", nargs="*", help="chapters, such as 03; all by default")
    parser.add_argument("--to", type=Path, metavar="DIR", required=True, help="where to write them")
    parser.add_argument("--pdf", action="store_true", help="print each as well")
    options = parser.parse_args()
    sources = build.sources(options.numbers)
    write(sources, options.to)
    for source in sources if options.pdf else []:
        at = (options.to / f"{source.stem}.html").resolve().as_uri()
        pdf = options.to / f"{source.stem}.pdf"
        print_pdf(browser(), f"{at}?notes", pdf)
    print(f"{options.to / 'index.html'}: {len(sources)} chapters")


if __name__ == "__main__":
    main()

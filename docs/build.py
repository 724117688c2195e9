"""Build the site into ``docs/_build/html``; a warning is an error.

    pip install -e ".[docs,lite,notebooks,plots,slides]"
    python docs/build.py
    MINIKV_REPOSITORY=https://github.com/OWNER/minikv python docs/build.py  # with links to edit

The chapters, the theorems and the page for contributors are those of the repository, where links
lead from file to file; one to a file that is not part of the site becomes the file's name. The
pages of the command line, of speed and of papers are made here, from what they are about.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import alt_text
import cli_page
import files_page
import lite_site
import outline
import papers_page
import picture
import proof_page
import slides_site
import speed_page

from minikv.extras import EXTRAS

ROOT = Path(__file__).parents[1]
DOCS, OUT = ROOT / "docs", ROOT / "docs" / "_build"
SOURCE = OUT / "source"
EDITION = OUT / "edition"  # the files of the chapters that run in a browser
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
MADE_HERE = {"cli.md": "docs/cli_page.py"}  # pages that are no file of the repository
ELSEWHERE = {
    ROOT / "proofs" / "README.md": "theorems.md",
    ROOT / "proofs" / "rocq" / "README.md": "rocq.md",
    ROOT / "notebooks" / "README.md": "course.md",
    ROOT / "notebooks" / "lecturer" / "projects" / "README.md": "projects.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
}
SHEET = ROOT / "notebooks" / "lecturer" / "cheatsheet.pdf"


def adapted(text: str, folder: Path, pages: dict[Path, str]) -> str:
    """Markdown whose links reach pages of the site, or are names of files."""

    def target(link: re.Match[str]) -> str:
        path = (folder / link[2]).resolve()
        if path in pages:
            return f"[{link[1]}]({pages[path]}{link[3] or ''})"
        if path.parent == DOCS and path.name in MADE_HERE:
            return link[0]
        if not path.is_relative_to(ROOT) or not path.exists():
            raise SystemExit(f"{folder}: the link {link[0]} leads nowhere")
        name = path.relative_to(ROOT).as_posix() + (f", {link[3][1:]}" if link[3] else "")
        return link[1] if link[1].strip("`") in name else f"{link[1]} (`{name}`)"

    return LINK.sub(target, text)


def write(name: str, text: str) -> None:
    """A file among the sources of the site."""
    (SOURCE / name).write_text(text, encoding="utf-8")


def lay_out() -> None:
    """Copy what the site shows of docs/, with the figures of the benchmarks."""
    shutil.rmtree(OUT, ignore_errors=True)  # no page stays that nothing makes any more
    needed = ("conf.py", "extension.py", "formulas.py")
    python = [path.name for path in DOCS.glob("*.py") if path.name not in needed]
    shutil.copytree(DOCS, SOURCE, ignore=shutil.ignore_patterns("_build", "*.pyc", *python))
    shutil.copytree(ROOT / "notebooks" / "pictures", SOURCE / "pictures")
    shutil.copy(SHEET, SOURCE)
    (SOURCE / "benchmarks").mkdir()
    for stem in ("RESULTS", "SCALING"):
        results = (ROOT / "benchmarks" / f"{stem}.md").read_text(encoding="utf-8")
        write(f"benchmarks/{stem}.md", speed_page.adapted(results))
        shutil.copy(ROOT / "benchmarks" / f"{stem}.png", SOURCE / "benchmarks")
        if stem == "RESULTS":
            write("benchmarks/CONCLUSIONS.md", "\n".join(speed_page.conclusions(results)))
    extras = [f"| `{name}` | {purpose} |" for name, (_, purpose) in EXTRAS.items()]
    write("extras.md", "\n".join(["| extra | what for |", "|---|---|", *extras]))
    write("proof-live.html", proof_page.fragment())
    if lacking := lite_site.missing():
        print(lite_site.WITHOUT.format(missing=", ".join(lacking)))
    else:
        lite_site.lay_out(EDITION)
        write("lite-links.html", lite_site.links(EDITION))
    (SOURCE / "_static" / "proof" / "minikv.zip").write_bytes(proof_page.packed())
    svg = picture.FILE.read_text(encoding="utf-8")
    write("claim.html", f'<div class="picture">\n{picture.for_the_page(svg)}</div>\n')


def pages(chapters: list[Path]) -> dict[str, str]:
    """Every page that is Markdown, and the text that it is made of."""
    own = {path: path.name for path in sorted(DOCS.glob("*.md"))}
    known = ELSEWHERE | own | {path: path.name for path in [*chapters, SHEET]}
    texts = {
        name: adapted(path.read_text(encoding="utf-8"), path.parent, known)
        for path, name in (ELSEWHERE | own).items()
    }
    listed = "\n".join(chapter.stem for chapter in chapters)
    if lacking := slides_site.missing():
        print(slides_site.WITHOUT.format(missing=", ".join(lacking)))
    else:
        texts["course.md"] += slides_site.SECTION
    texts["course.md"] += f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    texts["cli.md"] = cli_page.page()
    texts["contributing.md"] += files_page.section()
    texts["papers.md"] += papers_page.also_cited(texts["papers.md"])
    names = {name.removesuffix(".md") for name in texts} - {"index", "404"}
    texts["index.md"] = outline.with_the_rest(texts["index.md"], names)
    texts["proof.md"] = texts["proof.md"].replace("PYODIDE_VERSION", proof_page.version())
    if not lite_site.missing():
        texts["proof.md"] += lite_site.SECTION
    parts = outline.parts(texts["reference.md"])
    return texts | {f"{name}.md": part for name, part in parts.items()}


def origins(texts: dict[str, str], chapters: list[Path]) -> dict[str, str]:
    """The file of the repository that each page is made from."""
    found = {}
    for name in texts:
        page = name.removesuffix(".md")
        file = "docs/reference.md" if page.startswith("reference-") else f"docs/{name}"
        found[page] = MADE_HERE.get(name, file)
    for path, name in ELSEWHERE.items():
        found[name.removesuffix(".md")] = path.relative_to(ROOT).as_posix()
    return found | {path.stem: f"notebooks/{path.stem}.py" for path in chapters}


def main() -> None:
    chapters = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    lay_out()
    texts = pages(chapters)
    for name, text in texts.items():
        write(name, text)
    write("origins.json", json.dumps(origins(texts, chapters)))
    on_site = ELSEWHERE | {path: path.name for path in [*DOCS.glob("*.md"), *chapters]}
    for path in chapters:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        alt_text.describe(notebook["cells"])
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = adapted("".join(cell["source"]), path.parent, on_site)
        write(path.name, json.dumps(notebook))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    code = subprocess.run([*command, str(SOURCE), str(OUT / "html")]).returncode
    if code == 0 and not lite_site.missing():
        lite_site.build(EDITION, OUT / "html" / "lite")
    if code == 0 and not slides_site.missing():
        slides_site.build(OUT / "html" / "slides")
    sys.exit(code)


if __name__ == "__main__":
    main()

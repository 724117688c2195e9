"""Build the site into ``docs/_build/html``; a warning is an error.

    pip install -e ".[docs,plots]"
    python docs/build.py

The chapters, the theorems and the page for contributors are those of the repository, where links
lead from file to file; one to a file that is not part of the site becomes the file's name.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS, OUT = ROOT / "docs", ROOT / "docs" / "_build"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def adapted(text: str, folder: Path, pages: dict[Path, str]) -> str:
    """Markdown whose links reach pages of the site, or are names of files."""

    def target(link: re.Match[str]) -> str:
        path = (folder / link[2]).resolve()
        if path in pages:
            return f"[{link[1]}]({pages[path]}{link[3] or ''})"
        if not path.is_relative_to(ROOT) or not path.exists():
            raise SystemExit(f"{folder}: the link {link[0]} leads nowhere")
        name = path.relative_to(ROOT).as_posix() + (f", {link[3][1:]}" if link[3] else "")
        return link[1] if link[1].strip("`") in name else f"{link[1]} (`{name}`)"

    return LINK.sub(target, text)


def main() -> None:
    source = OUT / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("_build", "*.pyc", "build.py"))
    (source / "benchmarks").mkdir()
    for stem in ("RESULTS", "SCALING"):
        for suffix in (".md", ".png"):
            shutil.copy(ROOT / "benchmarks" / (stem + suffix), source / "benchmarks")
    markdown = {
        ROOT / "proofs" / "README.md": "theorems.md",
        ROOT / "proofs" / "rocq" / "README.md": "rocq.md",
        ROOT / "notebooks" / "README.md": "course.md",
        ROOT / "CONTRIBUTING.md": "contributing.md",
    }
    chapters = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    own = {path: path.name for path in DOCS.glob("*.md")}
    pages = markdown | own | {path: path.name for path in chapters}
    for path, name in (markdown | own).items():
        text = adapted(path.read_text(encoding="utf-8"), path.parent, pages)
        if name == "course.md":
            listed = "\n".join(chapter.stem for chapter in chapters)
            text += f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
        (source / name).write_text(text, encoding="utf-8")
    for path in chapters:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = adapted("".join(cell["source"]), path.parent, pages)
        (source / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(source),
        str(OUT / "html"),
    ]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()

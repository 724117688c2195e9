"""Which file does what: the modules of the package, by the first lines of their docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "minikv"


def first_line(source: str) -> str:
    """The first line of a module's docstring.

    Examples
    --------
    >>> first_line('\"\"\"What it is.\\n\\nMore.\"\"\"')
    'What it is.'
    """
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def folders(package: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder of a package that has modules, and these."""
    for folder in [package, *sorted(path for path in package.rglob("*") if path.is_dir())]:
        modules = sorted(folder.glob("*.py"))
        if modules:
            yield folder, modules


def section() -> str:
    """The table as Markdown."""
    lines = ["\n## Which file does what\n", "The first lines of the modules' docstrings.\n"]
    for folder, modules in folders(PACKAGE):
        name = folder.relative_to(PACKAGE.parent).as_posix()
        lines += [f"\n### {name}/\n", "| file | |", "|---|---|"]
        for path in modules:
            about = first_line(path.read_text(encoding="utf-8"))
            if about:
                about = about.replace("``", "`").replace("|", "\\|")
                lines.append(f"| `{path.name}` | {about} |")
    return "\n".join(lines) + "\n"

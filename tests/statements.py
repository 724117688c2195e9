"""How much code there is, counted in statements: ``python -m tests.statements [FOLDER]``.

Lines can be saved by packing, statements cannot: ``a, b = x, y`` counts as two. Docstrings do not
count. Nothing limits the numbers; they are here to be looked at.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "minikv"


def statements(source: str) -> int:
    """How many statements a module has; an assignment counts as often as it has targets."""
    tree = ast.parse(source)
    return sum(_weight(node) for node in ast.walk(tree) if isinstance(node, ast.stmt))


def _weight(node: ast.stmt) -> int:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return 0  # a docstring, or an ellipsis
    if not isinstance(node, ast.Assign):
        return 1
    packed = isinstance(node.value, (ast.Tuple, ast.List))
    widths = [
        len(target.elts) if packed and isinstance(target, (ast.Tuple, ast.List)) else 1
        for target in node.targets
    ]
    return sum(widths)


def main(folder: Path = PACKAGE) -> None:
    """Print the statements of each module, of each folder's own modules, and of all."""
    counts = {
        path.relative_to(folder): statements(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }
    for path, count in counts.items():
        print(f"{count:6d}  {path}")
    for parent in sorted({path.parent for path in counts} - {Path()}):
        print(f"{sum(n for path, n in counts.items() if parent in path.parents):6d}  {parent}/")
    print(f"{sum(counts.values()):6d}  {folder.name}/, all")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

"""The library stays small enough to read: lines of code, without blanks, comments, docstrings."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "minikv"
CORE = ("config.py", "arithmetic", "layers.py", "projection.py", "decoder.py", "caches")
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            docstring = node.body[0]
            docstrings.update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def total(paths) -> int:
    return sum(code_lines(path.read_text(encoding="utf-8")) for path in paths)


def test_code_lines_counts_code_alone():
    source = (
        '"""Doc."""\n\n# why\ndef f(x):\n    """Doc\n    more."""\n    return (\n        x\n    )\n'
    )
    assert code_lines(source) == 4


def test_the_core_stays_under_1500_lines():
    files: list[Path] = []
    for part in CORE:
        path = PACKAGE / part
        files += [path] if path.is_file() else path.glob("*.py")
    assert total(files) < 1500


def test_the_library_stays_under_4000_lines():
    """Without what stands beside it: the command line, what its experiments run, the backends."""
    beside = {
        820: {PACKAGE / "cli.py", *(PACKAGE / "commands").glob("*.py")},
        500: set((PACKAGE / "experiments").glob("*.py")),
        600: set((PACKAGE / "backends").glob("*.py")),
    }
    assert total(set(PACKAGE.rglob("*.py")).difference(*beside.values())) < 4000
    for limit, files in beside.items():
        assert total(files) < limit, files

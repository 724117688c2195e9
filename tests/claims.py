"""Which sentences have a test that would refute them: ``python -m tests.claims [--list FILE]``.

The sentences are those of the theorems' page, of ``docs/`` and of the docstrings of the arithmetics,
the caches and the verification. ``tests/claims.toml`` pairs them with tests; what it calls
`definition` says what a word or a name means, gives a source or tells the reader what to do, so that
nothing could refute it. The rest is not paired yet: it is counted, and listed by ``--list``.
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "claims.toml"
PAGES = (
    "proofs/README.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)
PACKAGES = ("minikv/arithmetic", "minikv/caches", "minikv/verify")


@dataclass(frozen=True)
class Claim:
    """Sentences of one file that stand together, and the tests that would refute them."""

    file: str
    says: str
    tests: list[str] = field(default_factory=list)
    definition: bool = False


def claims() -> list[Claim]:
    """What the table holds."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [Claim(file, **entry) for file, entries in table.items() for entry in entries]


def files() -> list[str]:
    """The files whose sentences count."""
    modules = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [*PAGES, *(path.relative_to(ROOT).as_posix() for path in modules)]


def prose(file: str) -> str:
    """The text of a file that is sentences: a page's own, or a module's docstrings; in one line."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        text = "\n\n".join(_docstrings(text))
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "\n\n", text)  # code
    text = re.sub(
        r"(?m)^\s*(\||#|>>>|\.\.\. |=====|-----|:|<!--).*$", "\n", text
    )  # tables, headings
    text = re.sub(r"(?m)^( {4,}|\t)\S.*$", lambda m: m[0] if file.endswith(".py") else "\n", text)
    text = re.sub(r"(?m)^\s*([*+-]|\d+\.) +", "\n\n", text)  # what a list holds
    return re.sub(r"[ \t]*\n(?!\n)[ \t]*(?!\n)", " ", re.sub(r"\n\s*\n", "\n\n", text))


def _docstrings(source: str) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text
        for inner in getattr(node, "body", []) if isinstance(node, kinds) else []:
            if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant):
                continue
    # the strings under a constant, which say what it is
    tree = ast.parse(source)
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(before, (ast.Assign, ast.AnnAssign)) and isinstance(after, ast.Expr):
            if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                yield after.value.value


def sentences(file: str) -> list[str]:
    """The sentences of a file, each in one line."""
    found = []
    for paragraph in re.split(r"\n+", prose(file)):
        for sentence in re.split(r"(?<=[.!?:;])\s+(?=[`*\"(\[$A-Z])", paragraph.strip()):
            words = " ".join(sentence.split())
            if len(words.split()) >= 3 and words.rstrip("*_`)")[-1:] in ".!?:;":
                found.append(words)
    return found

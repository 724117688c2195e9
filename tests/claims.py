"""Which sentences have a test that would refute them: ``python tests/claims.py [--list FILE]``.

The sentences are those of the theorems' page, of ``docs/``, and of the docstrings of the
arithmetics, the caches and the verification. ``tests/claims.toml`` names the tests of each, by
file. Where it names none, nothing could refute the sentence: it says what a word or a name means,
gives a source, or tells the reader what to do. Sentences that it does not hold are not paired with
tests yet: they are counted, and listed by ``--list``.

What a program writes into a page, between ``<!-- NAME: ... --write -->`` and ``<!-- end``, may be
made again with other figures: the sentences of such a block are paired together, by ``<!-- NAME``.
"""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "claims.toml"
PAGES = ("proofs/README.md", *(f"docs/{page.name}" for page in sorted(ROOT.glob("docs/*.md"))))
PACKAGES = ("minikv/arithmetic", "minikv/caches", "minikv/verify")
# Not prose: tables, headings, rules of a table, examples, names of parameters and their types.
MARKS = r"(?m)^\s*(\||#|>>>|\.\.\. |={3}|-{3}|<!--|[\w, *{}\"]+ : ).*$"


MADE = r"(?ms)^(<!-- \w+): [^\n]* --write -->$(.*?)^<!-- end"


def claims() -> dict[str, dict[str, list[str]]]:
    """By file and sentence, the tests that would refute it."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def files() -> list[str]:
    """The files whose sentences count."""
    modules = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return [*PAGES, *(path.relative_to(ROOT).as_posix() for path in modules)]


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, and those under its constants."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""
            for before, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(before, (ast.Assign, ast.AnnAssign)) and isinstance(after, ast.Expr):
                    yield str(getattr(after.value, "value", ""))


def paragraphs(file: str) -> list[str]:
    """The prose of a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        text = "\n\n".join(docstrings(text))
    else:
        text = re.sub(r"(?ms)^ *```.*?^ *```$", "\n\n", text)
        text = re.sub(r"(?m)^ {4}.*$", "", text)
    return prose(text)


def prose(text: str) -> list[str]:
    """The paragraphs of a text, without what is no prose."""
    text = re.sub(MARKS, "\n", text)
    text = re.sub(r"(?m)^\s*([*+-]|\d+\.) +", "\n\n", text)  # what a list holds
    return re.split(r"\n\s*\n", text)


def made(file: str) -> dict[str, str]:
    """By sentence, the block of a page that a program writes it into."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return {one: name for name, block in re.findall(MADE, text) for one in split(prose(block))}


def sentences(file: str) -> list[str]:
    """The sentences of a file, each in one line."""
    return split(paragraphs(file))


def split(prose: list[str]) -> list[str]:
    """The sentences of paragraphs."""
    found = []
    for paragraph in prose:
        line = " ".join(paragraph.split())
        for sentence in re.split(r"(?<=[.!?])\s+(?=[`*\"(\[$A-Z])", line):
            if len(sentence.split()) > 2 and sentence.rstrip("*_`)")[-1:] in tuple(".!?:"):
                found.append(sentence)
    return list(dict.fromkeys(found))


def paired_tests(file: str) -> dict[str, list[str] | None]:
    """By sentence of a file, its tests; none where it is not paired yet."""
    paired = claims().get(file, {})
    blocks = made(file)
    return {one: paired.get(one, paired.get(blocks.get(one, ""))) for one in sentences(file)}


def counts() -> tuple[int, int, int]:
    """How many sentences have a test, state nothing to refute, and are not paired yet."""
    tests = [tests for file in files() for tests in paired_tests(file).values()]
    return sum(map(bool, tests)), tests.count([]), tests.count(None)


def summary() -> str:
    """The counts in a line."""
    tested, said, left = counts()
    return (
        f"{tested} sentences with a test that would refute them, {said} that state nothing to "
        f"refute, {left} not paired yet"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", metavar="FILE", help="sentences of a file that are not paired")
    options = parser.parse_args()
    if options.list:
        for sentence, tests in paired_tests(options.list).items():
            if tests is None:
                print(sentence)
    print(summary())


if __name__ == "__main__":
    main()

"""tests/claims.toml: each sentence stands where it says, and each test that it names is there."""

from __future__ import annotations

import ast
import functools

import pytest
from claims import ROOT, claims, counts, files, made, main, paired_tests, sentences, summary


@functools.cache
def defined_in(file: str) -> set[str]:
    """The tests that a file defines."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {name for name in names if name.startswith("test_")}


def missing(table: dict[str, dict[str, list[str]]]) -> list[str]:
    """What the table says that is not so."""
    found = []
    for file, entries in table.items():
        there = set()
        if (ROOT / file).exists():
            there = {*sentences(file), *made(file).values()}
        found += [f"{file}: {sentence}" for sentence in entries if sentence not in there]
        for test in {test for tests in entries.values() for test in tests}:
            path, _, name = test.partition("::")
            known = defined_in(path) if (ROOT / path).exists() else set()
            if not known or name not in known | {"*"}:
                found.append(test)
    return found


def test_every_sentence_stands_there_and_every_test_exists():
    assert missing(claims()) == []


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"docs/exact.md": {"No sum has more than 2 terms.": []}}, "No sum has more than 2 terms."),
        ({"docs/none.md": {"It is.": []}}, "docs/none.md"),
        ({"docs/exact.md": {"x": ["tests/test_claims.py::test_no"]}}, "::test_no"),
        ({"docs/exact.md": {"x": ["tests/none.py::test_claims"]}}, "tests/none.py"),
    ],
)
def test_control_a_sentence_or_a_test_that_is_not_there_is_found(table, what):
    assert any(what in fault for fault in missing(table))


def test_sentences_are_those_of_prose():
    """Not of tables, code, headings or the types of parameters."""
    base = sentences("minikv/caches/base.py")
    assert "Only ``advance`` makes the call's tokens part of the sequence." in base
    assert "An independent copy, to continue the same text in two ways." in base
    assert not [sentence for sentence in base if "weights : " in sentence or "---" in sentence]
    page = sentences("proofs/README.md")
    assert "The 2 is attained." in page
    assert not [
        sentence for sentence in page if sentence.startswith(("|", "#")) or "```" in sentence
    ]


def test_the_command_counts_what_is_paired_and_lists_what_is_not(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["claims", "--list", "docs/exact.md"])
    main()
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == summary()
    tested, said_only, left = counts()
    assert tested + said_only + left == sum(len(sentences(file)) for file in files())
    assert set(said[:-1]) == set(sentences("docs/exact.md")) - claims()["docs/exact.md"].keys()


def test_what_a_program_writes_into_a_page_is_paired_as_a_whole():
    blocks = made("docs/conform.md")
    assert set(blocks.values()) == {"<!-- field"}
    assert set(blocks) < set(sentences("docs/conform.md"))
    tests = paired_tests("docs/conform.md")
    together = claims()["docs/conform.md"]["<!-- field"]
    assert all(tests[one] == together for one in blocks)
    assert "There is no such number." not in blocks

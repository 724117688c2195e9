"""On a terminal, what commands print is as wide as it is, and coloured; in a pipe it is neither."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable

import pytest

from minikv.cli import main
from minikv.commands.output import filled, print_table

COLOUR = re.compile(r"\033\[\d+m")
LONG = [
    "doctor",
    "fetch --list",
    "inspect {tiny}",
    "inspect {tiny} --tensors",
    "fingerprint --model {tiny} --prompt Hello",
    "generate Hello --model {tiny} --max-new-tokens 40 --logprobs 9",
    "demo Hello --model {tiny} --new-tokens 2",
    "prove --only T1,T2 --quick",
    "score --model {tiny} --limit 2 --policies full,residual:embedding@32",
    "compare --model {tiny} --prompts {prompts} --budgets 8,16 --new-tokens 2",
    "atlas",
    "atlas rotate_kv",
    "atlas dont_waste_bits --model {tiny} --prompts {prompts} --new-tokens 2",
    "memory --shape gemma-3-4b",
    "memory --model {tiny} --turns 1 --reply-tokens 2 --settings full,residual:every@128",
    "frontier --model {tiny} --evicted 8 --repeats 1",
    "latency --model {tiny} --batches 1 --lengths 8 --repeats 1",
    "paper --list",
    "paper --claim equation-28",
    "conform --list",
    "generate",
]
SLOW = [
    "prove --shape smollm-135m",
    "conform minikv:{tiny} --quick --axes cached,causality,fork",
]


class Screen(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(tiny, tmp_path, monkeypatch) -> Callable[[str, int], str]:
    """Run a command line on a terminal of a width, and return all that it shows, but no bars."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("=== one\nThe quick brown fox jumps over it.\n", encoding="utf-8")

    def call(line: str, width: int) -> str:
        screen = Screen()
        monkeypatch.setenv("COLUMNS", str(width))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            patch.setattr(sys, "stderr", screen)
            main([word.format(tiny=tiny, prompts=prompts) for word in line.split()])
        return re.sub(r"[^\n]*\r(\033\[K)?", "", screen.getvalue())

    return call


def widest(text: str) -> int:
    """How many columns its widest line takes."""
    return max(len(COLOUR.sub("", line)) for line in text.splitlines())


@pytest.mark.parametrize(
    "line", [*LONG, *(pytest.param(line, marks=pytest.mark.slow) for line in SLOW)]
)
def test_what_is_printed_fits_a_terminal_of_80_columns(shown, line):
    assert widest(shown(line, 80)) <= 80


@pytest.mark.parametrize("line", ["fetch --list", "paper --list", "memory --shape gemma-3-4b"])
def test_a_wider_terminal_is_used(shown, line):
    assert 90 < widest(shown(line, 120)) <= 120


@pytest.mark.parametrize(
    ("line", "words"), [("doctor", "ok"), ("prove --only T1 --quick", "holds"), ("demo Hi", "yes")]
)
def test_verdicts_have_a_colour_on_a_terminal_alone(shown, run, tiny, monkeypatch, line, words):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if line.startswith("demo"):
        line += " --new-tokens 2 --model {tiny}"
    assert f"\033[32m{words}" in shown(line, 80)
    code, out, _ = run(*(word.format(tiny=tiny) for word in line.split()))
    assert code == 0
    assert words in out
    assert "\033" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[3" not in shown(line, 80)


def test_a_table_loses_no_word_where_it_is_broken(monkeypatch):
    header = ["policy", "budget", "what it is", "bytes"]
    rows = [["residual:every", 32, "keys and values of the last tokens", 12345678]]
    for width in (26, 40, 80):
        screen = Screen()
        monkeypatch.setenv("COLUMNS", str(width))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            print_table(header, rows, keys=1)
        text = screen.getvalue()
        assert widest(text) <= width
        together = re.sub(r"\s", "", text)
        for word in ("residual:every", "32", "keys", "values", "tokens", "12,345,678"):
            assert word in together
        blocks = text.split("\n\n")
        assert len(blocks) == (1 if width == 80 else len(blocks))
        assert all(block.startswith("policy") for block in blocks)


def test_paragraphs_keep_their_indent_and_their_words(monkeypatch):
    text = "one two three four\n  five six seven eight"
    assert filled(text, 12) == "one two\nthree four\n  five six\n  seven\n  eight"
    assert filled(text, None) == text


def test_json_is_not_broken_by_a_terminal(shown):
    assert "findings" in json.loads(shown("doctor --json", 40))

"""The options of all commands: a name means one thing, whichever command has it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from minikv.cli import make_parser
from minikv.commands import find_commands

TALKING = {"chat", "generate", "serve-rank"}  # print as they go: a shell's > keeps it
TRIED = {
    "conform": ["--list"],
    "doctor": [],
    "fetch": ["--list"],
    "inspect": ["{tiny}"],
    "paper": ["--list"],
    "memory": ["--shape", "gemma-3-4b"],
    "fingerprint": ["--model", "{tiny}", "--prompt", "Hello"],
    "prove": ["--only", "T1", "--quick"],
    "demo": ["Hi", "--model", "{tiny}", "--new-tokens", "1"],
    "score": ["--model", "{tiny}", "--limit", "1"],
    "frontier": ["--model", "{tiny}", "--evicted", "4", "--repeats", "1"],
    "latency": ["--model", "{tiny}", "--batches", "1", "--lengths", "4", "--repeats", "1"],
    "compare": ["--model", "{tiny}", "--prompts", "{texts}", "--budgets", "8", "--new-tokens", "1"],
}


def options() -> Iterator[tuple[str, argparse.Action]]:
    """Every option of every command, and the command's name."""
    parser = make_parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for name, subparser in commands.choices.items():
        for action in subparser._actions:
            if action.option_strings:
                yield name, action


def named(option: str) -> dict[str, argparse.Action]:
    """The option of each command that has it."""
    return {name: action for name, action in options() if option in action.option_strings}


def test_json_is_a_flag_of_every_command():
    found = named("--json")
    assert found.keys() == find_commands().keys()
    for name, action in found.items():
        assert isinstance(action, argparse._StoreTrueAction), name
        assert action.default is False
        assert "JSON" in action.help
    others = {name for _, action in options() for name in action.option_strings if "json" in name}
    assert others == {"--json"}


def test_output_is_a_file_in_every_command_that_ends_with_figures():
    found = named("--output")
    assert found.keys() == find_commands().keys() - TALKING
    for name, action in found.items():
        assert (action.metavar, action.default) == ("FILE", None), name
        assert "- is standard output" in action.help


def test_an_option_takes_the_same_kind_of_value_in_every_command():
    """It is a flag everywhere, or has one word for its value everywhere."""
    kinds: dict[str, set[str | None]] = {}
    for _, action in options():
        for name in action.option_strings:
            kind = None if action.nargs == 0 else str(action.metavar)
            kinds.setdefault(name, set()).add(kind)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_every_option_has_words_that_say_what_it_is():
    assert [(name, a.option_strings) for name, a in options() if not a.help] == []


@pytest.fixture
def written(run, tiny, tmp_path):
    """Run a command of `TRIED` with more options; exit code and output."""
    texts = tmp_path / "texts"
    texts.write_text("=== one\nThe quick brown fox jumps over it.\n", encoding="utf-8")

    def call(name: str, *more: object) -> str:
        words = [word.format(tiny=tiny, texts=texts) for word in TRIED[name]]
        code, out, _ = run(name, *words, *more)
        assert code == 0
        return out

    return call


def keys(told: object) -> object:
    """The shape of figures, without what is measured anew each time."""
    return sorted(told) if isinstance(told, dict) else type(told)


@pytest.mark.parametrize("name", sorted(TRIED))
def test_json_output_to_a_file_and_output_to_a_dash_say_the_same(written, tmp_path, name):
    path = tmp_path / "figures.json"
    flag = json.loads(written(name, "--json"))
    dash = json.loads(written(name, "--output", "-"))
    text = written(name, "--output", path)
    assert keys(flag) == keys(dash) == keys(json.loads(path.read_text(encoding="utf-8")))
    assert not text.startswith("{")
    assert text.strip()
    assert not (Path.cwd() / "-").exists()


@pytest.mark.parametrize("name", ["demo", "score", "frontier", "latency", "compare"])
def test_figures_of_a_model_name_it_and_its_arithmetic(written, tiny, name):
    told = json.loads(written(name, "--json"))
    assert told["model"] == str(tiny)
    assert told.get("arithmetic") in ("float32", "exact") or {"float32", "exact"} <= told.keys()


@pytest.mark.parametrize("name", sorted(TRIED))
def test_a_file_that_cannot_be_written_is_refused_at_once(refused, tmp_path, tiny, name):
    words = [word.format(tiny=tiny, texts="no-such-file") for word in TRIED[name]]
    gone = tmp_path / "gone" / "figures.json"
    if name == "compare":
        words = ["--model", str(tiny)]
    assert "its folder does not exist" in refused(name, *words, "--output", gone)


@pytest.mark.parametrize(
    "words",
    [
        ["paper", "--html", "-"],
        ["prove", "--html", "-"],
        ["conform", "x.py:f", "--junit", "-"],
        ["generate", "x", "--save-cache", "-"],
    ],
)
def test_a_dash_is_no_name_of_another_file(refused, words):
    assert "standard output is for --output -" in refused(*words)

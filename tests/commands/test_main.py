"""The command ``minikv``: what its help says, and what it loads."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from minikv.commands import find_commands


def test_help_names_every_command_with_its_summary(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "a first session" in out
    for name, command in find_commands().items():
        assert re.search(rf"^    {name} +{re.escape(command.SUMMARY)}$", out, re.MULTILINE)


def test_a_command_is_a_file_that_has_a_function_run():
    assert {"generate", "chat", "fetch", "prove"} <= find_commands().keys()
    assert not {"main", "options", "output"} & find_commands().keys()


@pytest.mark.parametrize("name", find_commands())
def test_help_of_every_command_has_an_example_and_json(name, run):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"examples:\n  minikv {name}" in out
    assert "--json" in out


def test_the_command_starts_without_the_slow_libraries():
    program = (
        "import sys, minikv.cli as m; m.make_parser();"
        "print([m for m in ('gguf', 'huggingface_hub', 'jinja2', 'matplotlib', 'torch')"
        " if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


@pytest.mark.parametrize("name", [None, *find_commands()])
def test_help_fits_a_terminal_of_80_columns(name, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["--help"] if name is None else [name, "--help"]
    code, said, _ = run(*words)
    assert code == 0
    assert [line for line in said.splitlines() if len(line) > 80] == []

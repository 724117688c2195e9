"""``minikv doctor`` finds what is broken, and says what is missing."""

from __future__ import annotations

import importlib.util
import json

import pytest

from minikv import cli
from minikv.commands import doctor
from minikv.errors import ArithmeticRangeError


def findings(capsys, code: int = 0) -> dict[str, dict[str, str]]:
    """What it says as JSON, by what was looked at."""
    assert cli.main(["doctor", "--json"]) == code
    return {each["what"]: each for each in json.loads(capsys.readouterr().out)["findings"]}


def test_this_machine_has_the_golden_fingerprint(capsys):
    found = findings(capsys)["exact arithmetic"]
    assert found["state"] == "ok"
    assert found["found"].endswith("2d6582066fd41e11...")


def test_another_fingerprint_is_broken_and_said(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "fingerprint", lambda model, ids: "0123456789abcdef" * 4)
    found = findings(capsys, code=1)["exact arithmetic"]
    assert found["state"] == "broken"
    assert "0123456789abcdef" in found["found"]
    assert "2d6582066fd41e11" in found["found"]


def test_a_processor_that_exact_refuses_is_broken(capsys, monkeypatch):
    def refuse(*arguments, **settings):
        raise ArithmeticRangeError("this processor rounds twice")

    monkeypatch.setattr(doctor, "random_model", refuse)
    found = findings(capsys, code=1)["exact arithmetic"]
    assert (found["state"], found["found"]) == ("broken", "this processor rounds twice")


def test_a_missing_extra_is_named_with_the_command_that_brings_it(capsys, monkeypatch):
    find = importlib.util.find_spec

    def without(name, package=None):
        return None if name == "matplotlib" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    found = findings(capsys)["extra plots"]
    assert found["state"] == "missing"
    assert "pip install" in found["found"]
    assert "matplotlib" in found["found"]


def test_an_empty_home_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path / "not" / "there"))
    found = findings(capsys)
    assert found["model"]["state"] == "missing"
    assert "minikv fetch" in found["model"]["found"]
    assert found["disk"]["state"] == "ok"
    assert not (tmp_path / "not").exists()


def test_the_table_has_a_line_for_each_finding(capsys):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["looked", "at", "state", "found"]
    assert any(line.startswith("exact arithmetic") for line in lines)


@pytest.mark.parametrize(("words", "same"), [([], ["--help"]), (["help"], ["--help"])])
def test_help_is_what_a_beginner_types(capsys, words, same):
    assert cli.main(words) == cli.main(same) == 0
    said, again = capsys.readouterr().out.split("a first session:", 1)
    assert again.count("a first session:") == 1
    assert said.startswith("usage: minikv")


def test_help_of_a_command(capsys):
    assert cli.main(["help", "demo"]) == 0
    helped = capsys.readouterr().out
    assert cli.main(["demo", "--help"]) == 0
    assert capsys.readouterr().out == helped
    assert cli.main(["help", "dance"]) == 2

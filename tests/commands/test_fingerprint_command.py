"""``minikv fingerprint``: both numbers, and what computed them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_fingerprint import GOLDEN, TEXT, TINY, flip, largest_of_a_row

import minikv
from minikv.cli import main
from minikv.weights import load_tensors, save_folder


@pytest.fixture
def run(capsys):
    def call(*argv):
        code = main(["fingerprint", "--model", str(TINY), *argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_command_prints_the_golden_fingerprint(run):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["tiny"]
    code, out, _ = run("--json")
    figures = json.loads(out)
    assert code == 0
    assert {key: figures[key] for key in golden} == golden
    assert figures["tokens"] == len(golden["ids"])
    assert figures["environment"]["numpy"] == np.__version__
    code, out, _ = run("--chunk", "3", "--ids", *map(str, golden["ids"]))
    assert code == 0
    assert golden["fingerprint"] in out
    assert golden["weights"] in out


def test_command_sees_a_damaged_file(run, tmp_path, capsys):
    config = minikv.ModelConfig.from_file(TINY / "config.json")
    tensors = load_tensors(TINY, config)
    name = "model.layers.2.mlp.down_proj.weight"
    damaged = flip(tensors, name, largest_of_a_row(tensors[name]), bit=3)
    save_folder(tmp_path / "damaged", config, damaged)
    ids = [str(token) for token in TEXT]
    sound = json.loads(run("--json", "--ids", *ids)[1])
    assert main(["fingerprint", "--model", str(tmp_path / "damaged"), "--json", "--ids", *ids]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights"] != sound["weights"]
    assert found["fingerprint"] != sound["fingerprint"]


@pytest.mark.parametrize(("differ", "code"), [(0, 0), (2, 1)])
def test_extracted_prints_the_report_and_fails_where_a_bit_differs(run, monkeypatch, differ, code):
    asked = []

    def extracted(*arguments):
        asked.extend(arguments)
        return "the report\n", differ

    monkeypatch.setattr("minikv.commands.fingerprint.run_extracted", extracted)
    assert run("--extracted", "--ids", "3", "1") == (code, "the report\n", "")
    assert asked == ["--model", str(TINY), "--tokens", 3, 1]


def test_extracted_says_what_is_missing_in_one_line(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, err = run("--extracted", "--ids", "3")
    assert (code, out) == (2, "")
    assert "apt install coq" in err
    assert len(err.splitlines()) == 1
    monkeypatch.setattr("minikv.commands.extracted.SCRIPT", tmp_path / "run.py")
    code, _, err = run("--extracted", "--ids", "3")
    assert code == 2
    assert "in a checkout of the repository" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--extracted", "--arithmetic", "float32"], "does not go with --arithmetic float32"),
        (["--extracted", "--backend", "numba"], "does not go with --backend numba"),
        (["--extracted", "--chunk", "3"], "does not go with --chunk 3"),
        (["--extracted", "--json"], "does not go with --json"),
        (["--chunk", "0"], "expected a whole number from 1 up"),
        (["--ids", "320"], "outside the vocabulary"),
        (["--ids", "x"], "invalid int"),
        (["--prompt", "a", "--ids", "1"], "not allowed with"),
        (["--prompt", ""], "empty"),
        (["--arithmetic", "float8"], "float8"),
    ],
)
def test_command_refuses_wrong_input_in_one_line(argv, said, run):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1

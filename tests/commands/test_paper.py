"""``minikv paper``: what it prints, writes, leaves out and refuses."""

from __future__ import annotations

import json

import pytest

from minikv.cli import main
from minikv.paper import claims as folder
from minikv.paper.claim import Claim, Finding, Verdict
from minikv.paper.claims import CLAIMS


def claim_of(id: str, models: tuple[str, ...] = ()) -> Claim:
    finding = Finding(Verdict.REPRODUCED, "so", ("a", "b"), ((1, 2),), {})
    return Claim(
        id=id, where=id, title="t", says="s", protocol="p", models=models, run=lambda _: finding
    )


def test_the_command_prints_a_claim_json_and_a_page(run, tmp_path):
    code, out, _ = run("paper", "--claim", "equation-28")
    assert code == 0
    assert "REPRODUCED ONLY UNDER THIS READING." in out
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    written = tmp_path / "paper.html"
    argv = ["--claim", "equation-28", "--quick", "--json", "--keep", tmp_path, "--html", written]
    code, out, _ = run("paper", *argv)
    told = json.loads(out)
    assert told["quick"] is True
    assert told["claims"]["equation-28"] == json.loads((tmp_path / "equation-28.json").read_text())
    assert "<h2>Equation 28: " in written.read_text(encoding="utf-8")


def test_the_list_runs_nothing_and_names_what_is_needed(run, monkeypatch):
    monkeypatch.setattr("minikv.paper.run.examine", None)
    code, out, _ = run("paper", "--list")
    assert code == 0
    for id in CLAIMS:
        assert f"\n{id} " in out
    assert json.loads(run("paper", "--list", "--json")[1])["claims"].keys() == CLAIMS.keys()


def test_what_needs_weights_is_left_out_and_said(run, monkeypatch):
    made = {"table-8": claim_of("table-8", ("no-such",)), "table-9": claim_of("table-9")}
    monkeypatch.setattr(folder, "CLAIMS", made)
    code, out, _ = run("paper")
    assert code == 0
    assert "table-8" in out.splitlines()[-2]
    assert "not run: " in out.splitlines()[-2]
    assert "reproduced" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--table", "99"], "'table-99' is no claim that is checked; choose "),
        (["--figure", "x"], "'figure-x' is no claim"),
        (["--claim", "T1"], "'T1' is no claim"),
        (["--table", "1", "--figure", "2"], "not allowed with"),
        (["--keep", "/no/such/folder"], "expected a folder that exists"),
    ],
)
def test_wrong_input_is_refused_in_a_line(argv, told, refused):
    assert told in refused("paper", *argv)


def test_the_page_is_refused_before_the_run_where_its_folder_is_not_there(refused):
    pytest.importorskip("matplotlib", reason="plots need the extra `plots`")
    assert "its folder does not exist" in refused("paper", "--html", "/no/such/folder/x.html")


def test_one_claim_without_its_weights_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(folder, "CLAIMS", {"table-9": claim_of("table-9", ("no-such",))})
    assert main(["paper", "--table", "9"]) == 2
    assert "no-such" in capsys.readouterr().err

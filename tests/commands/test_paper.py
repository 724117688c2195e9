"""``minikv paper``: what it prints, writes, leaves out and refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from minikv.cli import main
from minikv.errors import InputError
from minikv.paper import claims as folder
from minikv.paper.claim import Claim, Finding, Verdict
from minikv.paper.claims import CLAIMS


def claim_of(id: str, models: tuple[str, ...] = ()) -> Claim:
    finding = Finding(Verdict.REPRODUCED, "so", ("a", "b"), ((1, 2),), {})
    return Claim(
        id=id,
        where=id,
        title="t",
        says="s",
        protocol="p",
        models=models,
        run=lambda _: finding,
        told=lambda _: (finding.verdict, finding.reason),
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


def test_each_model_has_a_section_of_its_own_on_the_page_and_in_json(run, tiny, tmp_path):
    """Claims that need no weights run once; one that a model cannot be asked is said not to run."""
    other = shutil.copytree(tiny, tmp_path / "other")
    models = ["--model", tiny, "--model", other]
    code, out, _ = run("paper", "--claim", "algorithm-1", "--quick", *models)
    assert code == 0
    said = " ".join(out.split())
    assert f"[algorithm-1] on {tiny}" in said
    assert f"[algorithm-1] on {other}" in said
    assert out.splitlines()[-3].split()[:1] == ["claim"]
    told = json.loads(run("paper", "--claim", "algorithm-1", "--quick", "--json", *models)[1])
    assert told["claims"] == told["not_run"] == {}
    ran_on = {
        name: each["claims"]["algorithm-1"]["models"] for name, each in told["models"].items()
    }
    assert ran_on == {str(tiny): [str(tiny)], str(other): [str(other)]}


def test_a_claim_that_does_not_suit_one_model_runs_on_the_others(run, tiny, tmp_path, monkeypatch):
    other = shutil.copytree(tiny, tmp_path / "other")
    fussy = replace(claim_of("table-9", ("its-own",)), run=refuses(str(tiny)))
    monkeypatch.setattr(folder, "CLAIMS", {"table-9": fussy, "table-8": claim_of("table-8")})
    told = json.loads(run("paper", "--json", "--model", tiny, "--model", other)[1])
    assert [*told["claims"]] == ["table-8"]
    assert told["models"][str(tiny)]["not_run"] == {"table-9": "not run: it has no such layers"}
    assert [*told["models"][str(other)]["claims"]] == ["table-9"]


def refuses(name: str):
    """What runs a claim on all models but one."""

    def run(setting):
        if setting.names == (name,):
            raise InputError("it has no such layers")
        return Finding(Verdict.REPRODUCED, "so", ("a",), ((1,),), {})

    return run


def test_models_that_contradict_are_refused_in_a_line(refused, tiny, tmp_path):
    twice = ["--model", tiny, "--model", tiny]
    assert "is given twice" in refused("paper", "--claim", "figure-5", *twice)
    told = refused("paper", "--table", "1", "--model", tiny)
    assert "table-1 reads no weights, leave it out" in told
    assert "no/such" in refused("paper", "--model", "no/such")
    other = shutil.copytree(tiny, tmp_path / "other")
    argv = ["--claim", "figure-5", "--model", tiny, "--model", other, "--keep", tmp_path]
    assert "--keep writes one file a claim, and 2 models are given" in refused("paper", *argv)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--list", "--model", "x"], "--list runs nothing: leave out --model"),
        (["--list", "--quick"], "--list runs nothing: leave out --quick"),
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

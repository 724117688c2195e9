"""The Rocq proofs build, rest on nothing but Coq's reals, and are about code that exists."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from minikv.atlas.theorems import THEOREMS as ATLAS
from minikv.verify import THEOREMS

ROOT = Path(__file__).parents[1]
ROCQ = ROOT / "proofs" / "rocq"
README = (ROCQ / "README.md").read_text(encoding="utf-8")

spec = importlib.util.spec_from_file_location("rocq_check", ROCQ / "check.py")
assert spec is not None
assert spec.loader is not None
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


@pytest.fixture
def coqc(request: pytest.FixtureRequest) -> None:
    if check.compiler() is None:
        if os.environ.get("CI") or request.config.getoption("--require-weights"):
            pytest.fail(check.INSTALL, pytrace=False)
        pytest.skip(check.INSTALL)


def run(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess:
    env = os.environ | ({} if path is None else {"PATH": path})
    command = [sys.executable, str(folder / "check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def missing_python(readme: str) -> list[str]:
    """The `` `file::function` `` names of README that are not in the tree."""
    missing = []
    for file, name in re.findall(r"`([\w/]+\.py)::([\w.]+)`", readme):
        path = ROOT / file
        scope = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
        for part in name.split("."):
            kinds = (ast.FunctionDef, ast.ClassDef)
            found = [node for node in scope if isinstance(node, kinds) and node.name == part]
            scope = found[0].body if found else []
        if not scope:
            missing.append(f"{file}::{name}")
    return missing


def not_in_rocq(names: Sequence[str]) -> list[str]:
    """The names ``File.theorem`` whose assumptions no file prints."""
    missing = []
    for name in names:
        file, theorem = name.split(".")
        path = ROCQ / f"{file}.v"
        text = check.code(path.read_text("utf-8")) if path.exists() else ""
        if theorem not in check.PRINTED.findall(text):
            missing.append(name)
    return missing


def test_the_rocq_theorems_that_a_theorem_names_exist_and_are_listed_under_it() -> None:
    for theorem in (THEOREMS | ATLAS).values():
        names = [theorem.abstract, *theorem.concrete] if theorem.abstract else theorem.concrete
        assert names
        assert not_in_rocq(names) == []
        rows = [row for row in README.splitlines() if row.startswith(f"| {theorem.id} |")]
        if theorem.abstract:
            assert any(f"`{theorem.abstract}`" in row for row in rows)
        assert all(any(f"`{name}`" in row for row in README.splitlines()) for name in names)
    without = [theorem.id for theorem in THEOREMS.values() if not theorem.concrete]
    assert without == ["T9"], "T9 is not about the decoder"


def test_control_a_rocq_theorem_that_does_not_exist_is_found() -> None:
    invented = ["Concrete.no_such_theorem", "Nowhere.concrete_rows"]
    assert not_in_rocq([*invented, "Concrete.concrete_rows"]) == invented


@pytest.mark.parametrize("path", sorted(ROCQ.glob("*.v")), ids=lambda path: path.name)
def test_a_file_of_proofs_is_short_and_says_what_it_proves(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"(* {path.name} -- ")
    assert len(lines) < 400
    assert max(map(len, lines)) <= 100
    assert f"`{path.name}`" in README, "README says in a sentence what it is about"


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_every_proof_holds() -> None:
    before = sorted(path.name for path in ROCQ.iterdir())
    done = run(ROCQ, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    checked = {(entry["file"], entry["theorem"]) for entry in result["theorems"]}
    assert checked >= set(check.listed(README))
    markov = [entry["assumptions"] for entry in result["theorems"] if entry["file"] == "Markov.v"]
    assert markov
    assert not any(markov), "a proof about arbitrary decoders needs no axiom"
    assert sorted(path.name for path in ROCQ.iterdir()) == before, "the build left files behind"


@pytest.mark.usefixtures("coqc")
def test_each_theorem_of_a_file_is_asked_alone_or_all_at_once(tmp_path: Path) -> None:
    """All at once they rest on what any of them rests on."""
    shutil.copy(ROCQ / "check.py", tmp_path)
    (tmp_path / "_CoqProject").write_text("-Q . Minikv\nTiny.v\n")
    (tmp_path / "README.md").write_text("| A0 | `Tiny.t`, `Tiny.r` | says | |\n")
    real = "Theorem r : (0 = 0)%R. Proof. reflexivity. Qed. Print Assumptions r."
    (tmp_path / "Tiny.v").write_text(f"From Coq Require Import Reals. {TRUE} {real}\n")
    rests = []
    for options in (["--json"], ["--json", "--each"]):
        done = run(tmp_path, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        rests.append([entry["assumptions"] for entry in json.loads(done.stdout)["theorems"]])
    (both, again), (alone, reals) = rests
    assert alone == []
    assert set(reals) == set(both) == set(again) != set()


def test_readme_lists_every_theorem_and_python_that_exists() -> None:
    stated = set()
    for name in check.sources(ROCQ):
        text = check.code((ROCQ / name).read_text(encoding="utf-8"))
        stated |= {(name, theorem) for theorem in check.STATED.findall(text)}
        stated |= {(name, lemma) for lemma in check.PRINTED.findall(text)}
    listed = set(check.listed(README))
    assert listed == stated
    assert {row.split()[1] for row in README.splitlines() if row.startswith(("| A", "| T"))} >= {
        *ATLAS,
        "T1",
        "T2",
        "T3",
        "T4",
        "T5",
        "T7",
        "T8",
        "T9",
        "T10",
        "T11",
        "T12",
    }
    assert len(re.findall("::", README)) > 20
    assert missing_python(README) == []


@pytest.mark.parametrize(
    "name",
    [
        "minikv/no_such_file.py::f",
        "minikv/projection.py::no_such_function",
        "minikv/arithmetic/exact.py::Exact.no_such_method",
        "minikv/arithmetic/exact.py::linear",
    ],
)
def test_control_a_python_name_that_does_not_exist_is_found(name: str) -> None:
    assert missing_python(f"{README}\n| T1 | | | `{name}` |") == [name]


def test_without_a_compiler_check_says_what_to_install(tmp_path: Path) -> None:
    done = run(ROCQ, path=str(tmp_path))
    assert done.returncode == 2
    assert "libcoq-flocq" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Proof. apply mapi_nth. Qed.", "Admitted.", "'Admitted'"),
        ("Proof. apply mapi_nth. Qed.", "Proof. admit. Admitted.", "'admit'"),
        ("Section Decoder.", "Axiom cheat : False.\nSection Decoder.", "'Axiom'"),
        ("Section Decoder.", "Parameter x : nat.\nSection Decoder.", "'Parameter'"),
        ("Print Assumptions markov.", "", "without `Print Assumptions markov.`"),
        ("Print Assumptions markov.", "(* Print Assumptions markov. *)", "states markov"),
        ("Markov.markov", "Markov.no_such_lemma", "README lists no_such_lemma"),
    ],
)
def test_control_what_is_assumed_or_unlisted_is_rejected(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = shutil.copytree(ROCQ, tmp_path / "rocq")
    changed = 0
    for path in (folder / "Markov.v", folder / "README.md"):
        text = path.read_text(encoding="utf-8")
        changed += old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    assert changed == 1
    done = run(folder)
    assert done.returncode == 1
    assert message in done.stderr


TRUE = "Theorem t : 1 = 1. Proof. reflexivity. Qed. Print Assumptions t."


@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TRUE, None),
        ("(* Admitted. (* Axiom *) *) " + TRUE, None),
        (TRUE.replace("1 = 1", "1 = 2"), "does not compile"),
        (TRUE.replace("Qed.", ""), "does not compile"),  # unfinished
        # No word gives these away: only the compiler's answer does.
        (
            "Hypothesis h : 1 = 2. Theorem t : 1 = 2. Proof. exact h. Qed. Print Assumptions t.",
            "t rests on h",
        ),
        (
            "From Coq Require Import ClassicalEpsilon. Theorem t (P : Prop) : {P} + {~ P}. Proof. "
            "apply excluded_middle_informative. Qed. Print Assumptions t.",
            "t rests on constructive_indefinite_description",
        ),
    ],
)
def test_control_the_compiler_is_asked(tmp_path: Path, text: str, message: str | None) -> None:
    shutil.copy(ROCQ / "check.py", tmp_path)
    (tmp_path / "_CoqProject").write_text("-Q . Minikv\nTiny.v\n")
    (tmp_path / "README.md").write_text("| T0 | `Tiny.t` | says | |\n")
    (tmp_path / "Tiny.v").write_text(text + "\n")
    done = run(tmp_path)
    assert done.returncode == (0 if message is None else 1), done.stderr
    assert message is None or message in done.stderr

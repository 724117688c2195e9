"""What is optional is imported where it is used, and missed in one line that helps."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from minikv.errors import MissingExtraError
from minikv.extras import require, require_extra

TINY = Path(__file__).parent / "fixtures" / "tiny"
ALONE = "import sys\nfor name in ('tokenizers', 'safetensors'): sys.modules[name] = None\n"


def run(script: str) -> subprocess.CompletedProcess:
    """A script in a process that has NumPy, and neither tokenizers nor safetensors."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", ALONE + script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_a_random_model_runs_on_numpy_alone():
    script = """
import minikv
model = minikv.random_model(minikv.tiny_config(), 0, "exact")
print(len(list(model.generate([1, 2, 3], 4))))
"""
    out = run(script)
    assert (out.stdout, out.stderr) == ("4\n", "")


def test_the_theorems_are_proved_on_numpy_alone():
    script = """
import runpy
sys.argv = ["minikv", "prove", "--quick", "--only", "T1,T2"]
runpy.run_module("minikv", run_name="__main__")
"""
    out = run(script)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("holds    found") == 2


@pytest.mark.parametrize(
    ("script", "package"),
    [
        (f"minikv.load({str(TINY)!r})", "safetensors"),
        (f"minikv.tokenizer.Tokenizer.from_folder({str(TINY)!r})", "tokenizers"),
    ],
)
def test_what_is_missing_is_said_where_it_is_needed(script, package):
    wrapped = f"""
import minikv, minikv.tokenizer
try:
    {script}
except minikv.MinikvError as error:
    print(error)
"""
    out = run(wrapped)
    assert f"needs the package '{package}', which is not installed: run  " in out.stdout, out
    assert out.stdout.rstrip().endswith(f"-m pip install {package}")
    assert out.stdout.count("\n") == 1


@pytest.fixture
def no_jinja(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)


def told(monkeypatch, requires: list[str] | None) -> str:
    """The advice for jinja2 where the installed minikv has these requirements, or is not there."""

    def answer(name: str) -> list[str]:
        if requires is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return requires

    monkeypatch.setattr(importlib.metadata, "requires", answer)
    with pytest.raises(MissingExtraError) as caught:
        require_extra("jinja2", "chat", "a chat template")
    return str(caught.value)


REQUIRES = ["numpy>=2.1", 'jinja2>=3.1; extra == "chat"', 'gguf>=0.10; extra == "fetch"']


@pytest.mark.parametrize(
    ("requires", "packages"), [(REQUIRES, '"jinja2>=3.1"'), ([], "jinja2"), (None, "jinja2")]
)
def test_an_extra_is_advised_by_its_packages(no_jinja, monkeypatch, requires, packages):
    """An index need not have minikv, and may have another of its name."""
    text = told(monkeypatch, requires)
    assert text == (
        "a chat template needs the package 'jinja2', which is not installed: run  "
        f"{sys.executable} -m pip install {packages} (the extra minikv[chat])"
    )


def test_without_pip_the_advice_begins_with_it(no_jinja, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else found(name)
    )
    text = told(monkeypatch, REQUIRES)
    assert f"run  {sys.executable} -m ensurepip && {sys.executable} -m pip install" in text


def test_what_is_there_is_imported():
    assert require("json", "a test").dumps(1) == "1"
    with pytest.raises(MissingExtraError, match="'no_such_package'"):
        require("no_such_package", "a test")


ROOT = Path(__file__).parents[1]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_no_library_of_a_gpu_is_needed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.match(r"[\w-]+", need)[0] for need in project["dependencies"]}
    assert names == {"numpy", "safetensors", "tokenizers"}


STAND_IN = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *"-m venv"*) for folder; do :; done
mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python"; cp "$0" "$folder/bin/pip";; esac
"""


@pytest.mark.skipif(os.name == "nt", reason="run is a shell script")
def test_run_makes_an_environment_once_and_asks_for_the_model_from_whatever_folder(tmp_path):
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(STAND_IN.format(log=log), encoding="utf-8")
    python.chmod(0o755)
    settings = {"PYTHON": str(python), "MINIKV_VENV": str(tmp_path / "venv")}
    called = []
    for folder in (ROOT, tmp_path):
        line = [str(ROOT / "run"), "generate", "Hello"]
        subprocess.run(line, cwd=folder, env={**os.environ, **settings}, check=True)
        called.append(log.read_text(encoding="utf-8"))
        log.write_text("", encoding="utf-8")
    for first, again in (("-m venv --clear", 0), ("-m pip install", 0), ("--fetch Hello", 1)):
        assert [call.count(first) for call in called] == [1, again]
    assert "-m minikv generate --fetch Hello" in called[1]
    script = (ROOT / "run").read_text(encoding="utf-8")
    assert "venv=${MINIKV_VENV:-$here/.venv}" in script
    assert len(script.splitlines()) < 100


def test_ci_runs_from_a_clone_from_its_parent_folder_and_from_a_wheel_and_checks_workflows():
    assert "from a fresh clone on Debian 12 with Python 3.11" in CI
    for step in ("from_the_parent_folder", "wheel", "readme_first_command", "readme_test_command"):
        assert re.search(rf"^(step|beside) .* {step}$", CI, re.MULTILINE), step
    assert "check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml" in CI


def test_the_workflows_run_what_the_page_of_installing_says():
    folder = ROOT / ".github" / "workflows"
    tests = (folder / "tests.yml").read_text(encoding="utf-8")
    assert "bash .ci/run" in tests
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in tests
    assert 'python: ["3.11", "3.12", "3.13", "3.14"]' in tests
    nightly = (folder / "nightly.yml").read_text(encoding="utf-8")
    for command in ("decoder_nightly.py", "tests/planting.py", "tests/mutation.py", "tests.fuzz"):
        assert command in nightly

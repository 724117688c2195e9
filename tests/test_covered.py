"""The command that prints which lines and branches no test walks, and fails if there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatch

import pytest
from covered import CORE, ROOT, TESTS, files_of

pytest.importorskip("coverage", reason="needs coverage (extra `dev`), not installed here")


def test_the_core_is_the_forward_pass_its_sums_its_backends_and_its_memories():
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "minikv").rglob("*.py")]
    core = {name for name in modules if any(fnmatch(name, pattern) for pattern in CORE)}
    folders = ("minikv/arithmetic/", "minikv/backends/", "minikv/caches/")
    assert core >= {name for name in modules if name.startswith(folders)}
    assert core >= {"minikv/decoder.py", "minikv/layers.py", "minikv/projection.py"}
    assert "minikv/cli.py" not in core


def test_every_test_of_a_folder_is_run():
    files = files_of(TESTS)
    assert {"tests/caches/test_machine.py", "tests/test_decoder.py"} <= set(files)
    assert len(files) == len(set(files))
    assert all((ROOT / name).is_file() for name in files)


def here() -> dict[str, str]:
    """An environment in which this checkout is imported, and whatever is installed here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "code", "said"),
    [
        ("minikv/caches/__init__.py", 0, "100.00 % of the core's lines and branches are walked"),
        ("minikv/caches/snapkv.py", 1, "minikv/caches/snapkv.py"),
    ],
)
def test_what_is_not_walked_fails_and_is_named(core, code, said, tmp_path):
    command = [sys.executable, "tests/covered.py", "--jobs", "2", "--keep", str(tmp_path)]
    command += ["--core", core, "--tests", "tests/caches/test_h2o.py", "tests/caches/test_none.py"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stdout
    seconds = [json.loads((tmp_path / f"walk.{part}.json").read_text()) for part in (0, 1)]
    assert all(seconds)


@pytest.mark.slow
def test_a_test_that_fails_is_no_measurement(tmp_path):
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it():\n    assert False\n", encoding="utf-8")
    command = [sys.executable, "tests/covered.py", "--jobs", "1", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(
        [*command, "--tests", os.path.relpath(failing, ROOT)],
        cwd=ROOT,
        env=here(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "a test failed: what was walked says nothing" in done.stderr

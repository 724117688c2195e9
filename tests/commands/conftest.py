"""What the tests of commands share: running ``minikv``, and being refused by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from minikv.cli import main


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the toy model, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``minikv`` in this process; its exit code, output and standard error."""

    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def refused(run) -> Callable[..., str]:
    """Run ``minikv`` on wrong input: exit code 2, one line on standard error, nothing else."""

    def call(*argv: object) -> str:
        code, out, err = run(*argv)
        assert (code, out) == (2, "")
        assert err.startswith("minikv: error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return call

"""tests/planting.toml: every fault can be planted, and the test that is to notice it is there."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys

import pytest
from planting import ROOT, faults, planted


@functools.cache
def defined_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", faults())
def test_the_fault_makes_another_program_and_its_test_is_there(name):
    entry = faults()[name]
    assert planted(name, entry["file"], entry["old"], entry["new"]).differs
    file, _, test = entry["by"].partition("::")
    assert test.partition("[")[0] in defined_in(file)


def test_a_text_that_is_gone_or_stands_twice_cannot_be_planted():
    with pytest.raises(ValueError, match="stands 0 times"):
        planted("gone", "decoder.py", "no such text", "")
    with pytest.raises(ValueError, match=r"stands [0-9]+ times"):
        planted("twice", "decoder.py", "return", "")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("first-wrong-id-unnamed", 0, "1 more faults planted by hand, 1 noticed"),
        ("second-cache-unchecked", 0, "1 more faults planted by hand, 1 noticed"),
    ],
)
def test_the_command_runs_the_test_with_the_fault_and_without(name, status, said):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    done = subprocess.run(
        [sys.executable, "tests/planting.py", name],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[0].split() == ["survived", "no", "fault"]
    assert said in done.stdout

"""What a theorem takes, followed literally from CONTRIBUTING.md in a scratch copy: one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mutants import ROOT

from minikv.verify import THEOREMS

TRUNCATION = '''r"""A truncated cache is the cache of the shorter text.

Let a cache have seen $x_1 \\dots x_m$. Truncated to $n$ tokens and fed
$x_{n+1} \\dots x_m$ again, it gives the same logits. *Proof.* By T8 the first $n$ rows are those of the shorter text.
"""

from ..cases import Case, differ, same_bits
from ..theorem import CAUSALITY, Theorem


def check(case: Case) -> None:
    """Truncated in the middle and fed again, a full cache gives the logits of one pass."""
    cache = case.model.new_cache("full")
    case.decoded(cache)
    cut = len(case.ids) // 2
    cache.truncate(cut)
    again = case.model.forward([case.ids[cut:]], [cache], "all")
    same_bits(again, case.logits[cut:], f"logits after truncating to {cut}")


def control(case: Case) -> str:
    """Feed the other text."""
    cache = case.model.new_cache("full")
    again = case.model.forward([case.other], [cache], "all")
    return "the logits differ" if differ(again, case.logits) else ""


THEOREM = Theorem(
    id="T12",
    name="truncation",
    text=__doc__,
    formula="<i>z</i>",
    remark="By T8.",
    hypotheses=(CAUSALITY,),
    check=check,
    control=control,
    dropped="the text",
    unlabelled="two runs are compared",
)
'''


def copied(folder: Path) -> Path:
    """The package, its proofs and what they read."""
    hidden = shutil.ignore_patterns("*.pyc", "__pycache__", ".*")
    for part in ("minikv", "proofs", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=hidden)
    for part in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / part, folder)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_theorem_takes_one_file_and_everything_else_is_made_from_it(tmp_path):
    folder = copied(tmp_path)
    (folder / "minikv/verify/theorems/t12_truncation.py").write_text(TRUNCATION, encoding="utf-8")
    stale = run(folder, "proofs/make_table.py", "--check")
    assert "stale" in stale.stderr
    assert run(folder, "proofs/make_table.py").returncode == 0
    readme = (folder / "proofs/README.md").read_text(encoding="utf-8")
    assert f"There are {len(THEOREMS) + 1}, T1 to T12" in readme
    assert "### T12 truncation" in readme
    assert "| T12 truncation |" in readme
    page = folder / "page.html"
    proved = run(folder, "-m", "minikv", "prove", "--quick", "--only", "T12", "--html", str(page))
    assert proved.returncode == 0, proved.stderr
    assert "T12, each bit for bit" in proved.stdout
    assert '<section id="T12">' in page.read_text(encoding="utf-8")
    tests = ["proofs/test_lecture.py", "proofs/test_theorems.py", "-k", "lecture or T12"]
    tested = run(folder, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests)
    assert tested.returncode == 0, tested.stdout
    assert tested.stdout.startswith("....")

"""What a new policy costs, by the letter of CONTRIBUTING in a scratch copy: three files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

POLICY = '''"""Keep the tokens that have most to say."""

from dataclasses import dataclass

import numpy as np

from ..arrays import to_numpy
from .evicting import Evicting, Rows
from .registry import register


@register
@dataclass(eq=False, repr=False)
class Vnorm(Evicting):
    """Keep the values of largest norm; a made-up policy, of no arXiv paper."""

    policy = "vnorm"
    per_head = True

    def priority(self, rows: Rows) -> np.ndarray:
        return np.linalg.norm(to_numpy(rows.values, dtype=np.float64), axis=-1)
'''

LINE = "from .vnorm import Vnorm as Vnorm\n"

ORACLE = """def vnorm(budget: int) -> Rule:
    def kept(tokens: list[int], values: dict[int, list[float]]) -> list[int]:
        norms = {t: math.sqrt(math.fsum(x * x for x in values[t])) for t in tokens}
        return sorted(best(budget, tokens, norms, repeats=True))

    return lambda layer: [kept(*head) for head in zip(layer.tokens, layer.values, strict=True)]


"""


@pytest.fixture
def scratch(tmp_path):
    """A copy of the library and of the tests of its caches, with the policy and its line."""
    unwanted = shutil.ignore_patterns("__pycache__", ".hypothesis", Path(__file__).name)
    for part in ("minikv", "tests/caches", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=unwanted)
    for part in ("tests/bits.py", "conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / part, tmp_path / part)
    package = tmp_path / "minikv" / "caches"
    (package / "vnorm.py").write_text(POLICY, encoding="utf-8")
    with open(package / "__init__.py", "a", encoding="utf-8") as file:
        file.write(LINE)
    return tmp_path


def run(folder: Path, *selected: str) -> tuple[int, str]:
    """How many tests of caches passed, and what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "tests/caches"]
    done = subprocess.run(
        [*command, *selected],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    return int(passed[1]) if passed and not done.returncode else 0, done.stdout


def test_three_files_make_a_policy_that_all_tests_run(scratch):
    oracles = scratch / "tests" / "caches" / "test_oracles.py"
    text = oracles.read_text(encoding="utf-8")
    text = text.replace("ORACLES: dict", ORACLE + "ORACLES: dict", 1)
    text = text.replace(
        '    "window": window,\n', '    "window": window,\n    "vnorm": vnorm,\n', 1
    )
    text = text.replace(
        '    "tova": h2o(4, 2),\n', '    "tova": h2o(4, 2),\n    "vnorm": window(4),\n'
    )
    oracles.write_text(text, encoding="utf-8")
    count, printed = run(scratch, "-k", "vnorm or oracle or registry")
    assert count, printed
    listed = run(scratch, "-k", "vnorm", "--collect-only")[1]
    assert "test_a_policy_is_its_oracle[vnorm]" in listed
    assert "test_an_interrupted_cache_says_so[vnorm(budget=5)]" in listed
    assert "test_a_saved_cache_goes_on_where_it_was[0-vnorm(budget=5)]" in listed


def test_a_policy_without_its_oracle_is_noticed(scratch):
    """The control: two of the three files are not enough."""
    _, printed = run(scratch, "-k", "has_an_oracle")
    assert "test_every_eviction_policy_has_an_oracle" in printed
    assert "1 failed" in printed

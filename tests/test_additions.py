"""What an addition costs: CONTRIBUTING followed in a copy of the repository, and files counted.

Each addition is what a stranger would write. The tests that must know of it are run in the copy:
they find it in a registry, and the addition is among the names of what passed. Left half done, it
is noticed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
COPIED = ("minikv", "tests", "proofs", "docs", "conftest.py", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Addition:
    """Files to write and to edit, and the tests that take the addition from a registry.

    Attributes
    ----------
    says : str
        What CONTRIBUTING says that it takes.
    most : int
        How many files it may touch.
    written : dict
        New files and what is in them.
    edited : dict
        Files, and in each the lines before which others are put in.
    tests : tuple
        What pytest is given.
    named : str
        What the names of tests about the addition have in them.
    passed : int
        How many of those there are at least.
    forgotten : str
        What is left out for the control: a file, of those above or one that the script makes.
    made : tuple of tuple
        Scripts, with their options, that make files from the addition.
    needs : str
        A package without which the tests cannot run.
    """

    says: str
    most: int
    written: dict[str, str]
    edited: dict[str, dict[str, str]]
    tests: tuple[str, ...]
    named: str
    passed: int
    forgotten: str
    made: tuple[tuple[str, ...], ...] = ()
    needs: str = ""


POLICY = Addition(
    says="Three files: the policy, its line among the imports, its oracle.",
    most=3,
    written={
        "minikv/caches/knorm.py": '''
"""Keep the keys that are short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import to_numpy
from .evicting import Evicting, Rows
from .registry import register


@register
@dataclass(eq=False, repr=False)
class Knorm(Evicting):
    """Each head keeps the `budget` keys of the smallest norm, which are attended to most.

    Devoto et al. 2024, arXiv 2406.11430. Departure: every layer is compressed.
    """

    policy = "knorm"
    per_head = True

    def priority(self, rows: Rows) -> np.ndarray:
        norms = np.linalg.norm(to_numpy(rows.keys).astype(np.float64), axis=-1)
        return -np.round(norms, 6)  # one token at two positions: rotations round, and it is a tie
'''
    },
    edited={
        "minikv/caches/__init__.py": {
            "from .none import": "from .knorm import Knorm as Knorm\n",
        },
        "tests/caches/test_oracles.py": {
            "ORACLES: dict": """def knorm(budget: int) -> Rule:
    def kept(tokens: list[int], keys: dict[int, list[float]]) -> list[int]:
        norms = {t: round(math.hypot(*keys[t]), 6) for t in tokens}
        return sorted(best(budget, tokens, {t: -norm for t, norm in norms.items()}))

    return lambda layer: [kept(*head) for head in zip(layer.tokens, layer.keys, strict=True)]


""",
            '    "tova": tova,': '    "knorm": knorm,\n',
            '    "tova": h2o(4, 2),': '    "knorm": h2o(4, 2),\n',
        },
    },
    tests=("tests/caches", "-k", "knorm or every"),
    named="knorm",
    passed=8,
    forgotten="tests/caches/test_oracles.py",
)

THEOREM = Addition(
    says="One file, and one more if it has an abstract form.",
    most=2,
    written={
        "minikv/verify/theorems/t13_truncation.py": '''
r"""A cache that is cut back to a prefix goes on as if it had seen no more.

Let a cache hold $n$ tokens, and cut it to $m < n$. What it gives for any further tokens is what a
cache gives that was fed $m$ tokens.
*Proof.* By T1 what it holds of a token is a function of the stream at this token, and by T8 the
stream does not depend on later tokens.
"""

from __future__ import annotations

from ..bits import assert_same_bits
from ..cases import Case
from ..theorem import CAUSALITY, EXACT_SUMS, Theorem, Weaker, refuted_in_float32


def check(case: Case) -> None:
    """Logits after cutting the cache in the middle, against those of one pass."""
    cache = case.model.new_cache()
    case.model.forward([case.ids], [cache], "none")
    middle = len(case.ids) // 2
    cache.truncate(middle)
    again = case.model.forward([case.ids[middle:]], [cache], "all")
    assert_same_bits(again, case.logits[middle:], f"logits after cutting to {middle} tokens")


THEOREM = Theorem(
    id="T13",
    name="truncation",
    text=__doc__,
    formula="truncate(<i>C</i>(<i>x</i>), <i>m</i>) = <i>C</i>(<i>x</i>[:<i>m</i>])",
    remark="Nothing that was kept knows of what came later.",
    hypotheses=(CAUSALITY, EXACT_SUMS),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    unlabelled="it is about calls of a cache",
    weaker=(
        Weaker(
            "nothing-kept",
            old="middle = len(case.ids) // 2",
            new="middle = 0",
            noticed="q-at-position-of-the-call",
        ),
        Weaker(
            "one-token-cut",
            old="middle = len(case.ids) // 2",
            new="middle = len(case.ids) - 1",
            noticed="mask-leaks-one-key",
        ),
        Weaker(
            "last-row-alone",
            old="assert_same_bits(again, case.logits[middle:],",
            new="assert_same_bits(again[-1:], case.logits[-1:],",
            noticed="mask-forgotten-in-short-calls",
        ),
    ),
)
'''
    },
    edited={},
    tests=(
        "proofs/test_theorems.py",
        "proofs/test_lecture.py",
        "proofs/test_weakened.py",
        "proofs/test_mutants.py",
        "-k",
        "T13 or lecture or section",
    ),
    named="T13",
    passed=9,
    forgotten="proofs/README.md",
    made=(
        (
            "proofs/mutants.py",
            "--write",
            "--only",
            "q-at-position-of-the-call",
            "mask-leaks-one-key",
            "mask-forgotten-in-short-calls",
        ),
        ("proofs/make_table.py",),
    ),
)

COMMAND = Addition(
    says="One file in `minikv/commands/`, named as the command:",
    most=1,
    written={
        "minikv/commands/tokens.py": '''
"""``minikv tokens``: a text in tokens."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..tokenizer import Tokenizer
from ..weights import resolve
from ..weights.fetch import DEFAULT
from .options import add_json
from .output import print_json

SUMMARY = "the tokens of a text"
DESCRIPTION = "Print the token ids of a text."
EXAMPLES = '  minikv tokens "Hello"'


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME")
    add_json(parser)


def run(args: Namespace) -> None:
    """Print the ids."""
    ids = Tokenizer.from_folder(resolve(args.model)).encode(args.text)
    if args.json:
        print_json({"ids": ids})
    else:
        print(*ids)
'''
    },
    edited={},
    tests=("tests/commands/test_main.py",),
    named="tokens",
    passed=1,
    forgotten="minikv/commands/tokens.py",
)

TRAIT = Addition(
    says="a new trait, is four files:",
    most=4,
    written={},
    edited={
        "minikv/families.py": {
            '    hidden_act: str = "silu"': "    branch_scale: float = 1.0\n",
            "    hidden_act : {": """    branch_scale : float
        What attention and the MLP add to the stream is multiplied by this.
""",
            '    "mistral": Family(),': '    "granite": Family(branch_scale=0.5),\n',
        },
        "minikv/config_json.py": {
            '    "mistral": Spelling(': """    "granite": Spelling(
        architecture="GraniteForCausalLM",
        defaults={"max_position_embeddings": 2048},
        not_built={"attention_bias": _UNSET, "mlp_bias": _UNSET},
    ),
""",
        },
        "minikv/decoder.py": {
            '        resid_mid = hook("hook_resid_mid"': (
                "        attn_out = attn_out * layer.config.family.branch_scale\n"
            ),
            '        return hook("hook_resid_post"': (
                "        mlp_out = mlp_out * layer.config.family.branch_scale\n"
            ),
        },
        "tests/peers/test_families.py": {
            '    "qwen2": (': (
                '    "granite": (transformers.GraniteConfig, transformers.GraniteForCausalLM),\n'
            ),
            '    if family == "mistral":': """    if family == "granite":
        numbers |= {"residual_multiplier": 0.5, "attention_multiplier": numbers["head_dim"] ** -0.5}
""",
        },
    },
    tests=("proofs/test_theorems.py", "tests/test_config.py", "tests/peers", "-k", "granite"),
    named="granite",
    passed=10,
    forgotten="minikv/decoder.py",
    needs="transformers",
)

ARITHMETIC = Addition(
    says="Two files: one in `minikv/arithmetic/`, and its line in `ARITHMETICS`",
    most=2,
    written={
        "minikv/arithmetic/careful.py": '''
"""Float32, but for the mean of squares, which is taken in double precision."""

from __future__ import annotations

from ..arrays import Array
from .float32 import Float32


class Careful(Float32):
    """BLAS in single precision, and norms from sums in double precision."""

    name = "careful"

    def mean_square(self, x: Array) -> Array:
        wide = self.xp.astype(x, self.xp.float64)
        return self.xp.astype(self.xp.mean(wide * wide, axis=-1, keepdims=True), self.dtype)
'''
    },
    edited={
        "minikv/arithmetic/__init__.py": {
            "from .exact import Exact": "from .careful import Careful\n",
            "    Float64.name:": "    Careful.name: lambda xp, context: Careful(xp),\n",
        },
    },
    tests=("tests/arithmetic/test_arithmetics.py",),
    named="careful",
    passed=5,
    forgotten="minikv/arithmetic/careful.py",
)

BACKEND = Addition(
    says="Two files: a function in `minikv/backends/choose.py`",
    most=2,
    written={},
    edited={
        "minikv/backends/choose.py": {
            "def _find_gpu": """def _compat(arithmetic: str, context: int) -> Arithmetic:
    xp = require_extra("array_api_compat.numpy", "compat", "backend 'compat'")
    return get_arithmetic(arithmetic, context, xp)


""",
            '    "jax": _jax,': '    "compat": _compat,\n',
        },
        "pyproject.toml": {"jax = [": 'compat = ["array-api-compat>=1.11"]\n'},
    },
    tests=("tests/backends/test_choose.py", "-k", "compat"),
    named="compat",
    passed=20,
    forgotten="minikv/backends/choose.py",
    needs="array_api_compat",
)

CLAIM = Addition(
    says="One file; what came of it, and the page, are made.",
    most=1,
    written={
        "minikv/paper/claims/equation_5.py": '''
"""A sum."""

from __future__ import annotations

from ..claim import Claim, Figures, Finding, Setting, Verdict


def run(setting: Setting) -> Finding:
    """Add."""
    figures = {"sum": 1 + 1}
    return Finding(*told(figures), ("paper", "ours"), ((2, 1 + 1),), figures)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Say it."""
    verdict = Verdict.REPRODUCED if figures["sum"] == 2 else Verdict.REFUTED
    return verdict, f"It is {figures['sum']}."


CLAIM = Claim(
    id="equation-5",
    where="Equation 5",
    title="One and one are two",
    says="1 + 1 = 2.",
    protocol="the sum.",
    run=run,
    told=told,
    exact=("sum",),
)
'''
    },
    edited={},
    made=(
        ("-m", "minikv", "paper", "--claim", "equation-5", "--keep", "docs/paper/results"),
        ("docs/paper/make.py",),
    ),
    tests=("tests/paper", "-k", "equation-5"),
    named="equation-5",
    passed=3,
    forgotten="minikv/paper/claims/equation_5.py",
)

ADDITIONS = {
    "policy": POLICY,
    "theorem": THEOREM,
    "command": COMMAND,
    "trait": TRAIT,
    "arithmetic": ARITHMETIC,
    "backend": BACKEND,
    "claim": CLAIM,
}


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of what an addition may touch or be tested by."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.png", ".hypothesis")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def add(addition: Addition, folder: Path, without: str = "") -> None:
    """Do what is to be done, but for one file."""
    for name, text in addition.written.items():
        if name != without:
            assert not (folder / name).exists()
            (folder / name).write_text(text.lstrip(), encoding="utf-8")
    for name, changes in addition.edited.items():
        text = (folder / name).read_text(encoding="utf-8")
        for line, new in changes.items():
            assert text.count(f"\n{line}") == 1, f"{name}: {line!r}"
            text = text.replace(f"\n{line}", f"\n{new}{line}")
        if name != without:
            (folder / name).write_text(text, encoding="utf-8")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python on the copy's minikv, which shadows an installed one."""
    environment = os.environ | {"PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "default"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def run_tests(addition: Addition, folder: Path) -> tuple[int, list[str], str]:
    """pytest's exit code, the tests about the addition that passed, and all that was said."""
    options = ("-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=", "-v")
    done = python(folder, "-m", "pytest", *options, *addition.tests)
    passed = re.findall(rf"^(\S*{addition.named}\S*).* PASSED", done.stdout, re.MULTILINE)
    return done.returncode, passed, done.stdout[-4000:] + done.stderr


BY_NIGHT = ("trait",)  # which takes longest, and the same way as the others


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.night] if name in BY_NIGHT else [])
        for name in ADDITIONS
    ],
)
def test_an_addition_touches_few_files_and_is_tested_by_being_there(name, copy):
    addition = ADDITIONS[name]
    if addition.needs:
        pytest.importorskip(addition.needs, reason=f"needs {addition.needs}, not installed here")
    assert len(addition.written.keys() | addition.edited.keys()) <= addition.most
    assert addition.says in " ".join(CONTRIBUTING.read_text(encoding="utf-8").split())
    add(addition, copy)
    for command in addition.made:
        made = python(copy, *command)
        assert made.returncode == 0, made.stderr
    code, passed, said = run_tests(addition, copy)
    assert code == 0, said
    assert len(passed) >= addition.passed, said


@pytest.mark.slow
@pytest.mark.night
@pytest.mark.parametrize("name", ADDITIONS)
def test_an_addition_without_one_of_its_files_is_noticed(name, copy):
    """The control: tests fail, or none is about it."""
    addition = ADDITIONS[name]
    if addition.needs:
        pytest.importorskip(addition.needs, reason=f"needs {addition.needs}, not installed here")
    add(addition, copy, without=addition.forgotten)
    code, passed, _ = run_tests(addition, copy)
    assert code != 0 or not passed

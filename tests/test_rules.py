"""The rules of the house that a program can check: how the library's code is written and layered.

Each rule is a function from source text to faults, and has a control: a text that breaks it. What
ruff checks by itself (complexity, branches, arguments) is only asked to be switched on.
"""

from __future__ import annotations

import ast
import graphlib
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from statements import statements

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minikv"
CORE = (
    "config.py",
    "arithmetic",
    "layers.py",
    "rotary.py",
    "memory.py",
    "projection.py",
    "decoder.py",
    "caches",
)

# All but the labels, which stand in for arrays of any library and for whatever is done to these.

# From the ground up: a module or package imports only from floors below its own.
FLOORS = (
    ("errors",),
    ("arrays", "colour", "extras", "numbers", "progress"),
    ("families",),
    ("config_json",),  # between a file and names; it does not know ModelConfig
    ("config",),
    ("arithmetic", "environment", "shapes", "tokenizer"),
    ("backends", "rotary"),
    ("layers", "weights"),
    ("memory", "projection"),
    ("decoder",),
    ("build", "caches", "patching"),
    ("generation",),
    ("completion",),
    ("model",),
    ("conversation", "fingerprint"),
    ("__init__",),
    ("parallel",),
    ("verify",),
    ("atlas",),
    ("experiments",),
    ("paper",),
    ("conform", "course"),
    ("commands",),
    ("cli",),
    ("__main__",),
)

Fault = tuple[int, str]  # line, what is wrong


# Rules about one source text


def opt_outs(source: str) -> Iterator[Fault]:
    """Nothing is kept from the formatter."""
    for number, line in enumerate(source.splitlines(), start=1):
        if re.search(r"#\s*(fmt|yapf)\s*:\s*(off|on|skip|disable|enable)", line):
            yield number, line.strip()


def packed_assignments(source: str) -> Iterator[Fault]:
    """No assignment has more than two targets, unless it unpacks one value or gives it names."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign):
            continue
        packed = isinstance(node.value, (ast.Tuple, ast.List))
        widest = max(
            len(target.elts) if isinstance(target, (ast.Tuple, ast.List)) else 1
            for target in node.targets
        )
        alias = isinstance(node.value, (ast.Name, ast.Attribute))
        if (packed and widest > 2) or (len(node.targets) > 2 and not alias):
            yield node.lineno, ast.unparse(node)


def choices_inside_calls(source: str) -> Iterator[Fault]:
    """No conditional expression stands inside the arguments of a call."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            for inner in ast.walk(argument):
                if isinstance(inner, ast.IfExp):
                    yield inner.lineno, ast.unparse(inner)


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a source text gives a meaning to, and the line where."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, line
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, line
        elif isinstance(node, ast.arg):
            yield node.arg, line
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, line
        elif isinstance(node, ast.alias):
            yield node.asname or node.name, line


def names_of_many_meanings(source: str) -> Iterator[Fault]:
    """``at`` meant positions, an index, a slice, a layer, a prefix and a key: it means nothing."""
    for name, line in bound_names(ast.parse(source)):
        if name == "at":
            yield line, "at"


def is_bare_any(annotation: ast.expr | None) -> bool:
    """Whether an annotation is ``Any``, alone or as one of several."""
    if isinstance(annotation, ast.BinOp):
        return is_bare_any(annotation.left) or is_bare_any(annotation.right)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return is_bare_any(ast.parse(annotation.value, mode="eval").body)
    return annotation is not None and ast.unparse(annotation) in ("Any", "typing.Any")


def public_definitions(body: Sequence[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AnnAssign]:
    """The public functions of a module, and the methods and fields of its public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_definitions(node.body)
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and ast.unparse(field.target)[0] != "_":
                    yield field
        elif isinstance(node, ast.If):
            yield from public_definitions([*node.body, *node.orelse])


def bare_any(source: str) -> Iterator[Fault]:
    """No public signature says Any: what is unknown is an `object`, an array has an alias.

    What is passed through, ``*args`` and ``**kwargs``, may be anything.
    """
    for node in public_definitions(ast.parse(source).body):
        if isinstance(node, ast.AnnAssign):
            annotations = [node.annotation]
        else:
            given = node.args
            arguments = (*given.posonlyargs, *given.args, *given.kwonlyargs)
            annotations = [*(argument.annotation for argument in arguments), node.returns]
        if any(map(is_bare_any, annotations)):
            yield node.lineno, ast.unparse(node).splitlines()[0]


def exemptions_from_ruff(source: str) -> Iterator[Fault]:
    """No line is exempt from ruff's rules of complexity."""
    for number, line in enumerate(source.splitlines(), start=1):
        if re.search(r"#\s*noqa(?!\s*:)|#\s*noqa\s*:.*\b(C901|PLR09\d\d)", line):
            yield number, line.strip()


@dataclass(frozen=True)
class Rule:
    """A check of single source texts, texts that break it, and texts that almost do."""

    check: Callable[[str], Iterator[Fault]]
    broken: Sequence[str]
    allowed: Sequence[str]
    where: tuple[str, ...] = ("",)  # parts of the package; all of it

    def __str__(self) -> str:
        return self.check.__name__


RULES = [
    Rule(opt_outs, ["x = [1,  2]  # " + "fmt: skip"], ["x = 1  # fmt"]),
    Rule(
        packed_assignments,
        ["a, b, c = x, y, 1", "a = b = c = 0"],
        [
            "a, b, c = f(x)",
            "low, high = 0, n",
            "a = b = 0",
            "__add__ = __radd__ = __sub__ = joined",
        ],
    ),
    Rule(
        choices_inside_calls,
        ["f(x, [y if y else 0])", "f(x, y=1 if x else 0)"],
        ["z = y if y else 0\nf(z)", "z = g(x) if x else 0"],
        CORE,
    ),
    Rule(
        names_of_many_meanings,
        ["def f(at): ...", "for k, (at, _) in x: ...", "x.at = 1", "import a as at"],
        ["def f(attended): ...", "f(at=1)", "print(x.at)"],
    ),
    Rule(
        bare_any,
        [
            "def f(x: Any): ...",
            "def f(*, x: int | Any = 0): ...",
            "def f() -> 'Any': ...",
            "class A:\n    def f(self) -> typing.Any: ...",
            "class A:\n    x: Any = 0",
            "if numba:\n    def f(x: Any): ...",
        ],
        [
            "def f(*x: Any, **y: Any) -> dict[str, Any]: ...",
            "def _f(x: Any): ...",
            "class _A:\n    x: Any\n    def f(self, x: Any): ...",
            "class A:\n    _x: Any\n    def __getattr__(self, name: str) -> Any: ...",
            "def f():\n    def g(x: Any): ...",
            "Array = Any\nx: Any = 0\ndef f(x: Array): ...",
        ],
    ),
    Rule(exemptions_from_ruff, ["f()  # noqa: B007, C901", "f()  # noqa"], ["x  # noqa: B018"]),
]


def files(parts: tuple[str, ...]) -> Iterator[Path]:
    """The modules of these parts of the package."""
    for part in parts:
        path = PACKAGE / part
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule_holds_in_the_library(rule):
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in files(rule.where)
        for line, text in rule.check(path.read_text(encoding="utf-8"))
    ]
    assert not faults, f"{rule.check.__doc__}\n" + "\n".join(faults)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rule_sees_what_breaks_it_and_nothing_else(rule):
    assert [text for text in rule.broken if not list(rule.check(text))] == []
    assert [text for text in rule.allowed if list(rule.check(text))] == []


# The formatter, everywhere


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every Python file and every code cell of the repository."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    for path in sorted([*ROOT.glob("*.py"), *(f for d in folders for f in d.rglob("*.py"))]):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                yield f"{path.name}, cell {number}", "".join(cell["source"])


def test_the_formatter_is_never_switched_off():
    seen = list(texts())
    assert len({name.split("/")[0] for name, _ in seen if "/" in name}) >= 5
    assert sum("cell" in name for name, _ in seen) > 50
    assert [(name, *fault) for name, text in seen for fault in opt_outs(text)] == []


# What ruff checks


def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]


def test_ruff_checks_the_complexity_of_the_library():
    lint = settings()["lint"]
    assert {"C901", "PLR0912", "PLR0913"} <= set(lint["select"])
    assert lint["mccabe"]["max-complexity"] <= 10
    assert lint["pylint"]["max-args"] <= 6
    assert "max-branches" not in lint["pylint"]  # ruff's 12
    assert not {"C901", "PLR0912", "PLR0913"} & set(lint["ignore"])
    exempt = {path: set(codes) for path, codes in lint["per-file-ignores"].items()}
    for path in (
        "minikv/generation.py",
        "minikv/completion.py",
        "minikv/model.py",
        "minikv/backends/numba_*.py",
    ):
        assert exempt.pop(path) == {"PLR0913"}
    assert not [path for path in exempt if path.startswith("minikv")]
    assert "exclude" not in settings().get("format", {})


TANGLED = "def f(x):\n" + "".join(f"    if x == {n}:\n        return -{n}\n" for n in range(13))
GREEDY = "def f(a, b, c, d, e, f, g): ...\n"


@pytest.mark.skipif(not shutil.which("ruff"), reason="needs ruff (extra `dev`), not installed here")
@pytest.mark.parametrize(
    ("source", "codes"), [(TANGLED, {"C901", "PLR0912"}), (GREEDY, {"PLR0913"}), ("x = 1\n", set())]
)
def test_ruff_refuses_what_is_tangled(source, codes):
    command = ["ruff", "check", "--output-format=json", "--stdin-filename=minikv/new.py", "-"]
    done = subprocess.run(command, input=source, cwd=ROOT, capture_output=True, text=True)
    assert {fault["code"] for fault in json.loads(done.stdout)} == codes


# Who imports whom


def imports(name: str, source: str, modules: set[str]) -> Iterator[tuple[str, str, int]]:
    """Module of this package that is imported, name that is taken from it ("" for all), line.

    Imports inside functions and under TYPE_CHECKING count: who reads the file follows them too.
    """
    package = name.split(".")[:-1]

    def module(*parts: str) -> str | None:
        """The module or package of this dotted name."""
        dotted = ".".join(parts)
        return next((m for m in (dotted, f"{dotted}.__init__".lstrip(".")) if m in modules), None)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == "minikv" and (found := module(*rest)):
                    yield found, "", node.lineno
        if isinstance(node, ast.ImportFrom):
            path = node.module.split(".") if node.module else []
            if node.level:
                path = package[: len(package) - node.level + 1] + path
            elif path[0] != "minikv":
                continue
            else:
                path = path[1:]
            for alias in node.names:
                if found := module(*path, alias.name):
                    yield found, "", node.lineno
                elif found := module(*path):
                    yield found, alias.name, node.lineno


def library() -> dict[str, str]:
    """Dotted name of each module, below the package, and its text."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def upward(sources: Mapping[str, str]) -> list[str]:
    """Imports of a floor that is not below, and modules that have no floor."""
    floors = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
    found = []
    for name, source in sources.items():
        here = name.split(".")[0]
        if here not in floors:
            found.append(f"{name} has no floor: add it to FLOORS")
            continue
        for other, _, line in imports(name, source, set(sources)):
            there = other.split(".")[0]
            if there != here and floors.get(there, 99) >= floors[here]:
                found.append(f"{name}:{line} imports {other}")
    return found


def circles(sources: Mapping[str, str]) -> list[str]:
    """The modules of one circle of imports; none if there is none."""
    graph = {
        name: {other for other, _, _ in imports(name, source, set(sources))} - {name}
        for name, source in sources.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def private(sources: Mapping[str, str]) -> list[str]:
    """Private names, and private modules' names, taken from another file."""
    found = []
    for name, source in sources.items():
        aliases = {}
        for other, taken, line in imports(name, source, set(sources)):
            aliases[other.removesuffix(".__init__").split(".")[-1]] = other
            if taken.startswith("_") and not taken.startswith("__"):
                found.append(f"{name}:{line} imports {taken} of {other}")
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in aliases
                and re.match(r"_[^_]", node.attr)
            ):
                found.append(f"{name}:{node.lineno} uses {node.value.id}.{node.attr}")
    return found


def test_no_module_imports_from_a_floor_above_or_beside():
    assert upward(library()) == []


def test_imports_run_in_no_circle():
    assert circles(library()) == []


def test_no_private_name_crosses_files():
    assert private(library()) == []


IMPORTS = [
    (upward, {"errors": "", "config": "from .errors import InputError"}, False),
    (upward, {"errors": "from .config import x", "config": ""}, True),
    (upward, {"extras": "from . import numbers", "numbers": ""}, True),
    (upward, {"errors": "def f():\n    import minikv.config", "config": ""}, True),
    (upward, {"errors": "", "caches.full": "from ..errors import InputError"}, False),
    (upward, {"errors": "", "misc": ""}, True),
    (upward, {"errors": "from minikv import load", "__init__": ""}, True),
    (circles, {"a": "from .b import x", "b": "from . import c", "c": ""}, False),
    (circles, {"a": "from .b import x", "b": "from . import c", "c": "import minikv.a"}, True),
    (circles, {"p.__init__": "from .q import x", "p.q": "from .r import y", "p.r": ""}, False),
    (circles, {"p.__init__": "from .q import x", "p.q": "from . import y"}, True),
    (circles, {"a": "if TYPE_CHECKING:\n    from .b import x", "b": "from .a import y"}, True),
    (private, {"a": "from .b import _x", "b": ""}, True),
    (private, {"a": "from . import b\nb._x", "b": ""}, True),
    (private, {"a": "from .b import x\nself._x", "b": ""}, False),
    (private, {"a": "from .b import __version__", "b": ""}, False),
]


@pytest.mark.parametrize(("check", "sources", "broken"), IMPORTS)
def test_rule_of_imports_sees_what_breaks_it_and_nothing_else(check, sources, broken):
    assert bool(check(sources)) == broken


# Statements, which are counted and not limited


def test_a_packed_assignment_counts_as_many_statements_as_it_has_targets():
    assert statements("a = x\nb = y") == statements("a, b = x, y") == statements("a = b = x") == 2
    assert statements('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x') == 2
    assert statements("a, b = f()") == 1

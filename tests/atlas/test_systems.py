"""The systems of the atlas: each demonstration comes out as its entry says, and notices faults."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import atlas_page
import atlas_theorems
import pytest
from statements import statements

from minikv.atlas import Entry, Exactness, Kind, entries, systems
from minikv.atlas.theorems import THEOREMS as ATLAS_THEOREMS
from minikv.caches import Evicting
from minikv.verify import THEOREMS

ROOT = Path(__file__).parents[2]
ATLAS = ROOT / "minikv" / "atlas"
BUILT = [entry for entry in entries().values() if entry.built]
MOST_STATEMENTS = 80


@dataclass(frozen=True)
class Fault:
    """A text of a file of the atlas, and what takes its place."""

    system: str
    old: str
    new: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.system}: {self.new[:40]}"


def faults() -> list[Fault]:
    text = (Path(__file__).parent / "faults.toml").read_text(encoding="utf-8")
    return [Fault(**fault) for fault in tomllib.loads(text)["fault"]]


def first_ones_fast() -> list:
    """The first fault of each system; the others are left to who asks for slow tests."""
    seen: set[str] = set()
    found = []
    for fault in faults():
        marks = [pytest.mark.slow] if fault.system in seen else []
        found.append(pytest.param(fault, marks=marks))
        seen.add(fault.system)
    return found


def module_of(source: str, name: str) -> types.ModuleType:
    """A module made of a text, in the place of one that is there."""
    module = types.ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
    return module


@contextmanager
def planted(fault: Fault) -> Iterator[Entry]:
    """The entry of a system with a fault in it, or in a file that it shares with others."""
    shared = fault.file or f"systems/{fault.system}.py"
    text = (ATLAS / shared).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, f"{shared}: {fault.old!r}"
    changed = text.replace(fault.old, fault.new)
    names = [f"minikv.atlas.{shared.removesuffix('.py').replace('/', '.')}"]
    names.append(f"{systems.__name__}.{fault.system}")
    before = {name: sys.modules[name] for name in names}
    try:
        module = module_of(changed, names[0])
        if fault.file:
            whole = (ATLAS / "systems" / f"{fault.system}.py").read_text(encoding="utf-8")
            module = module_of(whole, names[1])
        yield module.ENTRY
    finally:
        sys.modules.update(before)


@functools.cache
def comparisons(name: str):
    return tuple(entries()[name].demonstrate())


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_a_demonstration_comes_out_as_its_entry_says(entry):
    wrong = [comparison for comparison in comparisons(entry.name) if not comparison.holds]
    assert wrong == []


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_a_demonstration_has_a_claim_and_a_control(entry):
    assert {comparison.control for comparison in comparisons(entry.name)} == {False, True}


@pytest.mark.parametrize("fault", first_ones_fast(), ids=str)
def test_a_fault_is_noticed(fault):
    with planted(fault) as entry:
        found = [comparison.holds for comparison in entry.demonstrate()]
    assert not all(found)


def test_every_system_has_a_fault_that_its_demonstration_notices():
    assert {fault.system for fault in faults()} == {entry.name for entry in BUILT}


def test_a_file_without_a_fault_passes_in_the_same_way():
    """The control: it is the fault that is noticed, and not the way in which it is planted."""
    fault = Fault("trim_kv", "return logs * age", "return logs * age  # the same")
    with planted(fault) as entry:
        assert all(comparison.holds for comparison in entry.demonstrate())


def test_there_are_sixty_five_and_enough_of_them_run():
    assert len(entries()) == 65
    assert len(BUILT) >= 35
    assert sum(entry.kind is Kind.STUDY for entry in entries().values()) == 3


def test_an_entry_says_what_was_read_and_the_page_counts_the_code():
    code = sum("authors'" in entry.read for entry in BUILT)
    said = atlas_page.FILE.read_text(encoding="utf-8").replace("\n", " ")
    assert f"of {code} of those that run the authors' code was read" in said
    assert all("authors'" in entry.read or "abstract" in entry.read for entry in BUILT)


def test_the_atlas_has_nothing_to_train_with():
    """No library beside Python's own, NumPy and minikv."""
    imported: set[str] = set()
    for path in ATLAS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    assert imported - sys.stdlib_module_names == {"numpy"}


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.name)
def test_an_entry_is_complete(entry):
    assert (entry.verdict is Exactness.NOT_BUILT) == (not entry.built)
    assert entry.reason.endswith(".")
    assert not entry.cure.endswith(".")
    assert re.fullmatch(r"\d{4}\.\d{5}", entry.arxiv) or (not entry.built and not entry.arxiv)
    assert entry.read
    assert set(entry.theorems) <= (THEOREMS | ATLAS_THEOREMS).keys()
    if entry.built and not issubclass(entry.policy or int, Evicting):
        assert entry.state
    assert (ROOT / entry.file).is_file()


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_a_system_is_a_small_file_that_says_what_it_leaves_out(entry):
    path = ROOT / entry.file
    source = path.read_text(encoding="utf-8")
    assert statements(source) <= MOST_STATEMENTS
    said = inspect.getdoc(sys.modules[f"{systems.__name__}.{entry.name}"])
    for part in (f"arXiv {entry.arxiv}", "*Rule.*", "*Departures.*", "*Its authors claim*"):
        assert part in " ".join(said.split()), part


def test_every_counter_example_is_on_the_map():
    files = {path.stem for path in (ROOT / "proofs" / "counterexamples").glob("[a-z]*.py")}
    named = {name for entry in entries().values() for name in entry.counterexamples}
    assert files - named == BESIDE
    assert named <= files
    assert all(f"counterexamples/{name}.py) |" in atlas_page.page() for name in files)


BESIDE = {"value_residual", "dense_average", "tensor_quantisation"}
"""Counter-examples to what none of the systems does."""


def test_the_library_does_not_import_the_atlas_unless_asked():
    program = (
        "import sys, minikv, minikv.cli, minikv.experiments.policies as p;"
        "minikv.cli.make_parser();"
        "print('minikv.atlas' in sys.modules);"
        "model = minikv.random_model(minikv.tiny_config());"
        "print(p.policy_cache('atlas:trim_kv@4', model.weights).policy);"
        "print('minikv.atlas' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said.split() == ["False", "trim_kv", "True"]


def test_the_page_is_what_the_entries_say():
    assert atlas_page.FILE.read_text(encoding="utf-8") == atlas_page.page(), (
        "run  python docs/atlas_page.py"
    )


@pytest.mark.parametrize("name", ["Merge.no_such_lemma", "Nowhere.any_tree"])
def test_a_lemma_that_is_gone_is_noticed(name):
    assert "any_tree" in atlas_theorems.by_file(["Merge.any_tree"])
    with pytest.raises(SystemExit, match="has no"):
        atlas_theorems.by_file([name])


@pytest.mark.parametrize("where", ["PROPERTY", "CONTROL", "NOTICED", "WEIGHTS", "WEIGHTS_CONTROL"])
def test_a_test_that_is_gone_is_noticed(where):
    file, name = getattr(atlas_theorems, where)
    assert file in atlas_theorems.by_test((file, name))
    with pytest.raises(SystemExit, match="has no"):
        atlas_theorems.by_test((file, f"{name}_no_more"))


def test_a_lemma_that_is_not_listed_under_its_theorem_is_noticed():
    theorem = replace(ATLAS_THEOREMS["A1"], abstract="Margin.token_certificate")
    with pytest.raises(SystemExit, match="does not list"):
        atlas_theorems.lemmas(theorem)


def test_every_theorem_of_the_atlas_is_told_and_named_by_a_system():
    named = {name for entry in entries().values() for name in entry.theorems}
    assert ATLAS_THEOREMS.keys() - named == {"A6"}, "no system certifies its tokens"
    page = atlas_page.page()
    for theorem in ATLAS_THEOREMS.values():
        assert theorem.section in page


def test_a_changed_entry_would_show_on_the_page():
    entry = entries()["cake"]
    changed = type(entry)(**{**vars(entry), "reason": "Nothing is lost."})
    assert atlas_page.row(changed) != atlas_page.row(entry)

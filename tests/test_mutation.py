"""The mutation score: what is changed, which faults are drawn, how they are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mutation
import pytest
from mutate import mutants
from mutation import (
    PACKAGE,
    ROOT,
    STRATA,
    blunt,
    drawn,
    edges,
    equivalents,
    functions_with,
    is_edge,
    outcomes,
    score,
    stale,
    wilson,
    write_last_outcomes,
)

SOURCE = '''"""Read 1 and 2: prose is left alone."""
LIMIT: int = 2**8


@cache
def f(x: list[int] = None) -> int | None:
    """Not 3 < 4 either."""
    if x and len(x) <= LIMIT:
        raise ValueError(f"{len(x) - 1} numbers")
    x[:1] += [0.5]
    return max(x, key=abs) if x is not None else -1
'''


def test_each_operator_comparison_number_and_statement_is_changed_and_no_prose():
    found = {mutant.name.partition(": ")[2] for mutant in mutants(SOURCE, "f.py")}
    assert found >= {
        "2**8 -> 2 * 8",
        "8 -> 9",
        "8 -> 7",
        "len(x) <= LIMIT -> len(x) < LIMIT",
        "x and len(x) <= LIMIT -> x or len(x) <= LIMIT",
        "x and len(x) <= LIMIT -> x",
        'raise ValueError(f"{len(x) - 1} numbers") -> pass',
        "x[:1] += [0.5] -> pass",
        "x[:1] += [0.5] -> x[:1] -= [0.5]",
        ":1 -> :",
        "0.5 -> 1.0",
        "max -> min",
        "max(x, key=abs) -> max(x)",
        "x is not None -> x is None",
        "max(x, key=abs) if x is not None else -1 -> -1",
        "-1 -> 1",
    }
    lines = SOURCE.splitlines()
    prose = {1, 2, 5, 6, 7, 9}
    for mutant in mutants(SOURCE, "f.py"):
        after = mutant.source.splitlines()
        changed = {n for n, line in enumerate(lines, 1) if n > len(after) or after[n - 1] != line}
        assert changed <= set(range(2, 12))
        assert not changed & (prose - {2, 9}), mutant.name


def test_every_mutant_is_another_program_of_its_own_name():
    made = [m for file in ("decoder.py", "caches/full.py") for m in mutants(text(file), file)]
    assert len({mutant.name for mutant in made}) == len(made) > 100
    assert all(mutant.source != text(mutant.file) for mutant in made)
    assert all(mutant.differs for mutant in made[::9])
    assert not replace(made[0], after=made[0].text[made[0].start : made[0].stop]).differs
    assert not replace(made[0], after=b")(").differs


def text(file: str) -> str:
    return (PACKAGE / file).read_text(encoding="utf-8")


def test_an_edit_elsewhere_leaves_a_mutants_name():
    before = {mutant.name for mutant in mutants(text("layers.py"), "layers.py")}
    edited = f"{text('layers.py')}\n\nLAST = 1\n"
    assert before <= {mutant.name for mutant in mutants(edited, "layers.py")}


@pytest.mark.slow
def test_600_are_drawn_the_same_number_of_every_part_that_has_so_many():
    made = drawn()  # once: some seconds
    sizes = sorted(map(len, made.values()))
    assert sum(sizes) >= 600
    assert sizes[-1] == sizes[len(sizes) // 2]  # but for parts that have fewer
    assert made.keys() == STRATA.keys()
    core = {name for names in STRATA.values() for name in names}
    assert all((PACKAGE / name).is_file() for name in core)
    assert {"caches/tova.py", "caches/base.py", "arithmetic/numpy_exact.py"} <= core


def test_the_score_counts_what_was_killed_and_names_the_survivors(monkeypatch):
    monkeypatch.setattr(mutation, "equivalents", lambda: {"same": "is the same"})
    names = {"a": ["killed", "lived", "same"], "b": ["not run", "untested"]}
    ran = {
        "killed": {"outcome": "killed"},
        "lived": {"outcome": "survived"},
        "same": {"outcome": "survived"},
        "untested": {"outcome": "untested"},
    }
    table, survivors = score(names, ran)
    assert survivors == ["lived", "untested"]
    low, high = wilson(1, 3)
    assert table.splitlines()[-1] == (
        f"mutation score: 1 of 3 killed, 33.3 % ({100 * low:.1f} to {100 * high:.1f} % at 95 %); "
        "5 drawn, 1 equivalent"
    )
    assert "none of 5 drawn was run" in score(names, {})[0]


def test_wilsons_interval_is_the_published_one():
    """At 95 %: of 10, 0 and 5 and 10 (Brown, Cai and DasGupta 2001, table of Wilson intervals)."""
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_no_comparison_and_no_number_of_the_core_is_without_a_test_that_fails_next_to_it():
    """For one that is new run ``python tests/mutation.py --edges --run 9 --walked FOLDER``."""
    assert list(blunt(outcomes())) == []


def test_control_a_threshold_that_is_added_is_an_edge_and_its_neighbours_are():
    source = "def f(start):\n    if start > 1024:\n        return 1\n    return 2\n"
    found = {mutant.name for mutant in mutants(source, "f.py") if is_edge(mutant)}
    assert found == {"f.py f: start > 1024 -> start >= 1024", "f.py f: 1024 -> 1025"}
    assert sum(map(len, edges().values())) > 250


def test_of_several_outcomes_the_last_stays_and_of_code_that_has_changed_none(tmp_path):
    name = mutants(text("caches/tova.py"), "caches/tova.py")[0].name
    gone = ("caches/tova.py f: 1 -> 2", "caches/no_such_file.py f: 1 -> 2")
    ran = [(name, "survived"), *((old, "killed") for old in gone), (name, "killed")]
    path = tmp_path / "outcomes.jsonl"
    lines = [json.dumps({"mutant": mutant, "outcome": outcome}) for mutant, outcome in ran]
    path.write_text("\n".join(lines), encoding="utf-8")
    write_last_outcomes(path)
    assert list(outcomes(path).values()) == [{"mutant": name, "outcome": "killed"}]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1


def test_what_is_said_to_be_equivalent_is_a_mutant_still():
    assert stale(equivalents()) == set()


def test_what_is_written_down_can_be_read():
    assert all(record["outcome"] in ("killed", "survived") for record in outcomes().values())
    assert all(reason.endswith(".") for reason in equivalents().values())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("1 << (end - 1).bit_length()", "1 << (end - 2).bit_length()", "killed"),
        ("1 << (end - 1).bit_length()", "1 << (end - 0).bit_length()", "survived"),
        ("def reset", "def", "killed"),
        ("self.seen = 0", "self.seen = 0\n        while True: pass", "killed"),
    ],
)
def test_a_fault_is_run_in_the_place_of_the_file(old, new, outcome, tmp_path):
    """By one test: it knows nothing of a longer buffer, and of a shorter one it does.

    Both in a process that imports the file, and in one that has imported all tests before.
    """
    tests = ["tests/caches/test_full.py::test_growing_loses_nothing"]
    program = (
        "import sys, json; sys.path.insert(0, 'tests'); import mutation\n"
        "from functools import partial\n"
        "path = mutation.PACKAGE / 'caches/full.py'\n"
        f"before, middle, after = path.read_bytes().partition({old.encode()!r})\n"
        "mutant = mutation.Mutant('caches/full.py', 'one', range(0), before + middle + after,\n"
        f"    len(before), len(before + middle), {new.encode()!r})\n"
        f"tests = {tests!r}\n"
        "said = [mutation.apart(partial(mutation.run_imported, mutant, tests), 12.0)]\n"
        "if mutant.after != b'def':\n"  # which is no Python
        "    ready = mutation.Apart(['tests/caches/test_full.py'], [mutant], 12.0)\n"
        "    said.append(ready.run(mutant, tests))\n"
        "print(json.dumps(said))\n"
    )
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert {said["outcome"] for said in json.loads(done.stdout)} == {outcome}, done.stderr
    assert Path(PACKAGE / "caches/full.py").read_text(encoding="utf-8").count(old) == 1


def test_what_runs_at_import_is_imported_and_what_a_function_does_is_given_to_it():
    """A constant, a default and a class are made at import; also where a function is in a class."""
    source = (
        "LIMIT = 2\n"
        "def f(x=3):\n"
        "    return [y + 5 for y in x]\n"
        "class C:\n"
        "    size = 7\n"
        "    def g(self):\n"
        "        return lambda: 11\n"
    )
    found = {}
    for mutant in mutants(source, "f.py"):
        found.setdefault(mutant.name.split()[-3], set()).update(functions_with(mutant))
    assert found["5"] == {"f"}
    assert found["11"] == {"C.g"}
    assert not found["2"] | found["3"] | found["7"]

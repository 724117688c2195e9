"""How many arbitrary faults do the tests see? ``python tests/mutation.py [--run 50] [--jobs 2]``.

``proofs/mutants.toml`` holds faults that we thought of; these are made by rule (``mutate.py``).
600 and more are drawn, the same number of every part of the core, as far as it has so many. Each is
run against the tests that walk its lines, as ``python tests/covered.py --keep`` wrote down, quick
ones first, until one fails. An outcome is a line of ``tests/mutation.jsonl``: who goes on another
day runs what has no line yet. Nothing in the checkout is changed: a process is forked for each
fault, and imports the faulty source in the place of the file.

    python tests/covered.py --keep walked                # once: which test walks which line
    python tests/mutation.py --walked walked --run 50    # fifty more
    python tests/mutation.py                             # the score, and who survived

A survivor is killed by a new test (``--again`` runs the survivors anew, with ``--files`` against
tests that are named), or said to be equivalent,
with the reason, in ``tests/mutation.toml``. The interval is Wilson's, at 95 %: what the score of
all faults that can be drawn may be.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import signal
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
from mutate import Mutant, mutants

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minikv"
OUTCOMES = ROOT / "tests" / "mutation.jsonl"
EQUIVALENT = ROOT / "tests" / "mutation.toml"


def files(pattern: str) -> tuple[str, ...]:
    """The files of the package of this pattern, but those that only hand names on."""
    found = sorted(PACKAGE.glob(pattern))
    names = [path.relative_to(PACKAGE).as_posix() for path in found]
    return tuple(name for name in names if not name.endswith(("__init__.py", "registry.py")))


STRATA: dict[str, tuple[str, ...]] = {
    "decoder": ("decoder.py",),
    "layers": ("layers.py",),
    "projection": ("projection.py",),
    "rotary": ("rotary.py",),
    "attention": ("arithmetic/base.py", "arithmetic/sight.py"),
    "exact": files("arithmetic/*exact.py"),
    "float32": (*files("arithmetic/*float32.py"), "arithmetic/room.py"),
    "elementary": ("arithmetic/elementary.py",),
    **{Path(name).stem: (name,) for name in files("caches/*.py")},
    "residual": files("caches/residual/*.py"),
    "labels": ("verify/dataflow.py", "verify/certificate.py", "verify/backwards.py"),
    "theorems": files("verify/theorems/t*.py"),
    "patching": ("patching.py",),
    "generation": ("generation.py",),
}
DRAWN = 640  # of which some turn out to be no other program
# These plant faults of their own, in code that has one already: they speak of checks only.
PLANTING = ("proofs/test_mutants.py", "proofs/test_weakened.py")
FIRST = 12  # tests of a mutant that run before the others are looked at
STUCK = 5.0  # times what the chosen tests may take, and a minute, after which a run is stuck


# Which faults


def drawn(count: int = DRAWN) -> dict[str, list[Mutant]]:
    """By stratum, the mutants that are drawn: of each the same number, as far as it has so many.

    The draw is by a hash of the mutant's name, so that an edit elsewhere changes little of it.
    """
    pool = {name: sorted(_all_of(names), key=_ticket) for name, names in STRATA.items()}
    level = 0
    while sum(min(level, len(made)) for made in pool.values()) < count:
        level += 1
    return {
        name: list(itertools.islice((m for m in made if m.differs), level))
        for name, made in pool.items()
    }


def _all_of(names: tuple[str, ...]) -> Iterator[Mutant]:
    for file in sorted(names):
        yield from mutants((PACKAGE / file).read_text(encoding="utf-8"), file)


def _ticket(mutant: Mutant) -> bytes:
    return hashlib.sha256(mutant.name.encode()).digest()


# Which tests


@dataclass
class Walked:
    """What ``python tests/covered.py --keep`` wrote down."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from coverage import CoverageData

        self.data = CoverageData(basename=str(self.folder / "walked"))
        self.data.read()
        for path in self.folder.glob("walk.*.json"):
            self.seconds |= json.loads(path.read_text(encoding="utf-8"))

    def tests(self, mutant: Mutant, most: float) -> tuple[list[str], int]:
        """Tests that walk a mutant's lines, about `most` seconds of them, and how many there are.

        First those that lie as the file does, and of these one case of each test, then another of
        each. Of what runs at import, or once for all tests, every test of the file counts.
        """
        by_line = self.data.contexts_by_lineno(str(PACKAGE / mutant.file))
        found = {test for line in mutant.lines for test in by_line.get(line, [])}
        if "" in found or not found:
            found = {test for tests in by_line.values() for test in tests}
        theorem = mutant.file.startswith("verify/")
        found = {test for test in found if test and (theorem or not test.startswith(PLANTING))}
        cases: dict[str, list[str]] = defaultdict(list)
        for test in sorted(found, key=self._seconds):
            cases[test.partition("[")[0]].append(test)
        order = sorted(
            (_distance(test, mutant.file), rank, self._seconds(test), test)
            for tests in cases.values()
            for rank, test in enumerate(tests)
        )
        chosen = []
        for *_, seconds, test in order:
            if most < 0 and chosen:
                break
            chosen.append(test)
            most -= seconds
        return chosen, len(found)

    def _seconds(self, test: str) -> float:
        return self.seconds.get(test, 1.0)


def _distance(test: str, file: str) -> int:
    """How far a test lies from a file: in the file of its tests, in their folder, elsewhere."""
    path = Path(test.partition("::")[0])
    if Path(file).stem in path.stem:
        return 0
    return 1 if path.parent.name == Path(file).parts[0] else 2


# One run


@dataclass(eq=False)
class Chosen:
    """A pytest plugin: runs tests, in this order, or whole files; says which failed first."""

    tests: list[str]
    failed: str = ""

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        phases = [Phase.explicit, Phase.generate]  # a failure need not be made small
        settings.register_profile("mutation", phases=phases, derandomize=True)
        settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        there = {item.nodeid: item for item in items}
        whole = [item for item in items if item.nodeid.partition("::")[0] in self.tests]
        items[:] = [there[name] for name in self.tests if name in there] + whole

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def imported_in_place_of(path: Path, source: str) -> None:
    """From now on, import this source where the file would be imported."""
    original = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> Any:
        if Path(self.path) == path:
            return compile(source, self.path, "exec", dont_inherit=True)
        return original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def run_here(path: Path, source: str, tests: list[str]) -> dict[str, str]:
    """The outcome of tests in this process, which then is of no other use.

    The first few run before the files of the others are imported.
    """
    imported_in_place_of(path, source)
    options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--no-header"]
    found = {"outcome": "untested"}
    for part in (tests[:FIRST], tests[FIRST:]):
        plugin = Chosen(part)
        files = sorted({test.partition("::")[0] for test in part})
        if not files:
            break
        status = pytest.main([*options, *files], plugins=[plugin])
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return {"outcome": "killed", "by": plugin.failed or "import"}
        if status == pytest.ExitCode.OK:
            found = {"outcome": "survived"}
    return found


@dataclass
class Running:
    """A process that runs one mutant."""

    process: int
    answer: int  # a file descriptor
    until: float
    started: float

    def outcome(self) -> dict[str, Any] | None:
        """What came of it; None while it runs."""
        ended, _ = os.waitpid(self.process, os.WNOHANG)
        took = round(time.monotonic() - self.started, 1)
        if ended:
            with os.fdopen(self.answer, encoding="utf-8") as file:
                said = file.read()
            return (json.loads(said) if said else {"outcome": "killed", "by": "crash"}) | {
                "seconds": took
            }
        if time.monotonic() < self.until:
            return None
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.answer)
        return {"outcome": "killed", "by": "stuck", "seconds": took}


def start(path: Path, source: str, tests: list[str], most: float) -> Running:
    """Fork a process that runs tests with a source in the place of a file."""
    answer, write = os.pipe()
    now = time.monotonic()
    process = os.fork()
    if process:
        os.close(write)
        return Running(process, answer, now + most, now)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    try:
        said = run_here(path, source, tests)
    except BaseException as error:  # whatever a fault may lead to
        said = {"outcome": "killed", "by": type(error).__name__}
    os.write(write, json.dumps(said).encode())
    os._exit(0)


def warm_up() -> None:
    """Import what tests import, all but minikv, so that a fork need not."""
    for name in ("numpy", "hypothesis.extra.numpy", "mpmath", "array_api_strict", "numba", "torch"):
        try:
            __import__(name)
        except ImportError:
            continue


# The score


def wilson(killed: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a share at 95 %; Wilson 1927, "Probable inference", equation 5.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(95, 100)]
    [0.888, 0.978]
    """
    z = 1.959964  # of the normal distribution, at 97.5 %
    share = killed / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (middle - spread) / scale, (middle + spread) / scale


def outcomes(path: Path = OUTCOMES) -> dict[str, dict[str, Any]]:
    """The last outcome of each mutant, by name."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {record["mutant"]: record for record in map(json.loads, lines)}


def equivalents() -> dict[str, str]:
    """Mutants that are the same program, and why, by name."""
    return tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))


def score(names: dict[str, list[str]], found: dict[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """The table of strata, whose last line is the score, and the survivors."""
    same = equivalents()
    rows = []
    survivors = []
    killed_of_all = 0
    count_of_all = 0
    for stratum, members in names.items():
        ran = [name for name in members if name in found and name not in same]
        killed = [name for name in ran if found[name]["outcome"] == "killed"]
        survivors += [name for name in ran if name not in killed]
        equal = sum(name in same for name in members)
        killed_of_all += len(killed)
        count_of_all += len(ran)
        rows.append(f"{stratum:14} {len(killed):4} of {len(ran):4} killed, {equal:3} equivalent")
    total = sum(map(len, names.values()))
    line = f"mutation score: none of {total} drawn was run"
    if count_of_all:
        low, high = wilson(killed_of_all, count_of_all)
        line = (
            f"mutation score: {killed_of_all} of {count_of_all} killed, "
            f"{100 * killed_of_all / count_of_all:.1f} % ({100 * low:.1f} to {100 * high:.1f} % at "
            f"95 %); {total} drawn, {sum(name in same for m in names.values() for name in m)} "
            "equivalent"
        )
    return "\n".join([*rows, line]), survivors


def summary() -> str:
    """The line that says the score."""
    names = {stratum: [m.name for m in made] for stratum, made in drawn().items()}
    return score(names, outcomes())[0].splitlines()[-1]


def run(chosen: list[Mutant], walked: Walked, options: argparse.Namespace) -> None:
    """Run mutants, so many at a time, and write each outcome down as soon as it is known."""
    most = options.seconds
    waiting = list(reversed(chosen))
    running: dict[str, tuple[Running, int, int]] = {}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            mutant = waiting.pop()
            tests, of = walked.tests(mutant, most)
            if options.files:
                tests = options.files
            limit = 60.0 + STUCK * most
            begun = start(PACKAGE / mutant.file, mutant.source, tests, limit)
            running[mutant.name] = (begun, len(tests), of)
        for name, (one, tests, of) in list(running.items()):
            said = one.outcome()
            if said is not None:
                record = {"mutant": name, **said, "tests": tests, "of": of}
                with open(OUTCOMES, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"{record['outcome']:9} {said['seconds']:6.1f} s  {name}", flush=True)
                del running[name]
        time.sleep(0.05)


def in_turns(strata: dict[str, list[Mutant]]) -> Iterator[Mutant]:
    """The first of each stratum, then the second of each, and so on."""
    for rank in range(max(map(len, strata.values()))):
        for made in strata.values():
            yield from made[rank : rank + 1]


def expect_nothing_fails() -> None:
    """The control: without a fault, the tests that killed one pass, as they are run here."""
    by = (record.get("by", "") for record in outcomes().values())
    tests = sorted({test for test in by if "::" in test})
    path = PACKAGE / "decoder.py"
    one = start(path, path.read_text(encoding="utf-8"), tests, 3600.0)
    said = None
    while said is None:
        time.sleep(0.2)
        said = one.outcome()
    if said["outcome"] != "survived":
        raise SystemExit(f"without a fault, {said}: the score says nothing")
    print(
        f"without a fault the {len(tests)} tests that killed one pass, in {said['seconds']:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=int, default=0, help="how many mutants to run (default: 0)")
    parser.add_argument("--walked", type=Path, help="the folder that covered.py --keep made")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for one mutant")
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--only", default="", help="mutants whose name has this in it")
    parser.add_argument("--files", nargs="+", help="run these tests, or files of them")
    parser.add_argument(
        "--control", action="store_true", help="see that without a fault these tests pass"
    )
    options = parser.parse_args()
    strata = drawn()
    found = outcomes()
    if options.run or options.control:
        if options.walked is None or not hasattr(os, "fork"):
            raise SystemExit("--run needs --walked FOLDER, and a system that forks")
        os.environ["MINIKV_HOME"] = str(options.walked / "no-weights")
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(options.walked / "hypothesis")
        os.chdir(ROOT)
        warm_up()
        walked = Walked(options.walked.resolve())
        todo = [m for m in in_turns(strata) if m.name not in found]
        if options.again:
            lived = {name for name, record in found.items() if record["outcome"] != "killed"}
            todo = [m for m in in_turns(strata) if m.name in lived - equivalents().keys()]
        todo = [mutant for mutant in todo if options.only in mutant.name]
        run(todo[: options.run], walked, options)
        found = outcomes()
        if options.control:
            expect_nothing_fails()
    names = {stratum: [m.name for m in made] for stratum, made in strata.items()}
    table, survivors = score(names, found)
    for name in survivors:
        print(f"{found[name]['outcome']}: {name} ({found[name]['tests']} of {found[name]['of']})")
    print(table)
    sys.exit(0)


if __name__ == "__main__":
    main()

"""How many arbitrary faults do the tests see? ``python tests/mutation.py [--run 50] [--jobs 2]``.

``proofs/mutants.toml`` holds faults that we thought of; these are made by rule (``mutate.py``).
600 and more are drawn, the same number of every part of the core, as far as it has so many. Each is
run against the tests that walk its lines, as ``python tests/covered.py --keep`` wrote down, those
that killed its neighbours and quick ones first, until one fails. An outcome is a line of
``tests/mutation.jsonl``: who goes on another day runs what has no line yet.

Nothing in the checkout is changed. All tests are imported once; a process is forked for each fault,
and gives the faulty code to the functions that have it. A fault of what runs at import, and one
that is run against tests that are named, is imported in the place of the file.

    python tests/covered.py --keep walked                # once: which test walks which line
    python tests/mutation.py --walked walked --run 50    # fifty more
    python tests/mutation.py                             # the score, and who survived

A survivor is killed by a new test (``--again`` runs the survivors anew, with ``--files`` against
tests that are named), or said to be equivalent,
with the reason, in ``tests/mutation.toml``. The interval is Wilson's, at 95 %, as if the
outcomes were those of a sample. They are not quite: survivors were given tests, and edges were run
first.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import inspect
import itertools
import json
import math
import os
import select
import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, TextIO

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
    "memory": ("memory.py",),
    "attention": ("arithmetic/base.py", "arithmetic/sight.py", "arithmetic/masking.py"),
    "exact": files("arithmetic/*exact.py"),
    "float32": (*files("arithmetic/*float32.py"), "arithmetic/room.py"),
    "rounded": ("arithmetic/rounded.py",),
    "elementary": ("arithmetic/elementary.py",),
    **{Path(name).stem: (name,) for name in files("caches/*.py")},
    "residual": files("caches/residual/*.py"),
    "labels": ("verify/dataflow.py", "verify/certificate.py", "verify/backwards.py"),
    "theorems": files("verify/theorems/t*.py"),
    "checks": tuple(
        f"verify/{name}.py" for name in ("bits", "blocks", "cases", "memories", "theorem")
    ),
    "patching": ("patching.py",),
    "generation": ("generation.py",),
}
# Of these, every comparison and every number beyond 2 has a test in which its neighbour fails, or
# its neighbour is the same program.
EDGED = (
    *("decoder.py", "layers.py", "projection.py", "rotary.py", "memory.py"),
    *("generation.py", "patching.py"),
    *files("arithmetic/*.py"),
    *files("caches/*.py"),
    *files("caches/residual/*.py"),
)
DRAWN = 720  # of which some turn out to be no other program
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


def edges() -> dict[str, list[Mutant]]:
    """By file, each comparison with the end that it has not, and each number next to its value.

    0, 1 and 2 count axes, bits and halves: those that decide anything stand in a comparison.
    """
    return {name: [one for one in _all_of((name,)) if is_edge(one)] for name in EDGED}


def is_edge(mutant: Mutant) -> bool:
    """Whether a comparison is changed, or a number beyond 2 to the next."""
    before = mutant.text[mutant.start : mutant.stop].decode()
    try:
        node = ast.parse(before, mode="eval").body
    except SyntaxError:
        return False
    if isinstance(node, ast.Compare):
        return True
    number = isinstance(node, ast.Constant) and isinstance(node.value, (int, float))
    return number and node.value > 2 and mutant.after.decode() != f"({node.value - 1})"


def blunt(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The edges of which no test is known to fail, and why."""
    same = equivalents()
    for mutant in (one for made in edges().values() for one in made):
        outcome = found.get(mutant.name, {"outcome": "not run"})["outcome"]
        if outcome != "killed" and mutant.name not in same:
            yield f"{outcome}: {mutant.name}"


def edge_summary() -> str:
    """How many edges fail a test, in a line."""
    count = sum(map(len, edges().values()))
    left = len(list(blunt(outcomes())))
    return (
        f"{count} comparisons, and numbers beyond 2, of the core: next to {count - left} a test "
        f"fails or nothing changes, {left} left"
    )


def _all_of(names: tuple[str, ...]) -> Iterator[Mutant]:
    for file in sorted(names):
        yield from _of_file(file)


@cache
def _of_file(file: str) -> tuple[Mutant, ...]:
    path = PACKAGE / file
    if not path.is_file():
        return ()
    return tuple(mutants(path.read_text(encoding="utf-8"), file))


def stale(names: Iterable[str]) -> set[str]:
    """Which of these names no mutant has any more, because its code has changed."""
    names = set(names)
    of = tuple({name.partition(" ")[0] for name in names})
    return names - {mutant.name for mutant in _all_of(of)}


def _ticket(mutant: Mutant) -> bytes:
    return hashlib.sha256(mutant.name.encode()).digest()


# Which tests


@dataclass
class Walked:
    """What ``python tests/covered.py --keep`` wrote down."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    killed: Counter[tuple[str, str]] = field(default_factory=Counter)  # file of mutants, test
    by_line: dict[str, dict[int, list[str]]] = field(default_factory=dict)  # and by file

    def __post_init__(self) -> None:
        from coverage import CoverageData

        self.data: list[CoverageData] = []
        for path in sorted(self.folder.glob("walk.*.json")):
            self.seconds |= json.loads(path.read_text(encoding="utf-8"))
            self.data.append(CoverageData(basename=str(path.with_suffix(""))))
            self.data[-1].read()
        for record in outcomes().values():
            self.learn(record)

    def learn(self, record: dict[str, Any]) -> None:
        """Count a test that killed a mutant."""
        self.killed[record["mutant"].partition(" ")[0], record.get("by", "")] += 1

    def walking(self, mutant: Mutant) -> set[str]:
        """The tests that walk a mutant's lines, and "" where they run while tests are imported."""
        lines = self._lines(mutant.file)
        return {test for line in mutant.lines for test in lines.get(line, [])}

    def _lines(self, file: str) -> dict[int, list[str]]:
        if file not in self.by_line:
            found: dict[int, list[str]] = defaultdict(list)
            for data in self.data:
                for line, tests in data.contexts_by_lineno(str(PACKAGE / file)).items():
                    found[line] += tests
            self.by_line[file] = dict(found)
        return self.by_line[file]

    def tests(self, mutant: Mutant, most: float) -> tuple[list[str], int]:
        """Tests that walk a mutant's lines, about `most` seconds of them, and how many there are.

        First those that killed a neighbour, then those that lie as the file does, and of these one
        case of each test, then another of each. Of what runs at import, or once for all tests,
        every test of the file counts.
        """
        found = self.walking(mutant)
        if "" in found or not found:
            found |= {test for tests in self._lines(mutant.file).values() for test in tests}
        theorem = mutant.file.startswith("verify/")
        found = {test for test in found if test and (theorem or not test.startswith(PLANTING))}
        cases: dict[str, list[str]] = defaultdict(list)
        for test in sorted(found, key=self._seconds):
            cases[test.partition("[")[0]].append(test)
        order = sorted(
            (-self.killed[mutant.file, test], _distance(test, mutant.file), rank, test)
            for tests in cases.values()
            for rank, test in enumerate(tests)
        )
        chosen = []
        for *_, test in order:
            if most < 0 and chosen:
                break
            chosen.append(test)
            most -= self._seconds(test)
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


def set_up_hypothesis() -> None:
    """A failure need not be made small, and the same examples are drawn each time."""
    from hypothesis import Phase, settings

    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("mutation", phases=phases, derandomize=True)
    settings.load_profile("mutation")


@dataclass(eq=False)
class Chosen:
    """A pytest plugin: runs tests, in this order, or whole files; says which failed first."""

    tests: list[str]
    failed: str = ""

    def pytest_configure(self) -> None:
        set_up_hypothesis()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = []
        for name in self.tests:
            found += [item for item in items if name in (item.nodeid, *_wholes(item.nodeid))]
        items[:] = found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


@dataclass(eq=False)
class Bench:
    """A pytest plugin: imports all tests, then serves one request after the other.

    Attributes
    ----------
    serve : callable
        Is given this, once all tests are there.
    """

    serve: Callable[[Bench], None]
    tests: dict[str, pytest.Item] = field(default_factory=dict)
    failed: str = ""

    def pytest_configure(self) -> None:
        set_up_hypothesis()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.tests = {item.nodeid: item for item in session.items}
        self.serve(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def cases(self, name: str) -> list[pytest.Item]:
        """One test, or all cases of a test, or all of a file."""
        if name in self.tests:
            return [self.tests[name]]
        return [item for one, item in self.tests.items() if name in _wholes(one)]

    def run(self, mutant: Mutant, tests: list[str]) -> dict[str, str]:
        """The outcome of tests in this process, which then is of no other use."""
        try:
            give_the_fault(mutant)
        except LookupError:
            return {"outcome": "untested"}
        items = [item for name in tests for item in self.cases(name)]
        for item, after in itertools.zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self.failed:
                return {"outcome": "killed", "by": self.failed}
        return {"outcome": "survived" if items else "untested"}


def functions_with(mutant: Mutant) -> dict[str, CodeType]:
    """The code of each function that a fault changes; none if it changes what runs at import."""
    before = _codes(mutant.text, mutant.file)
    after = _codes(mutant.source, mutant.file)
    if before.keys() != after.keys():
        return {}
    changed = {name: code for name, code in after.items() if _body(code) != _body(before[name])}
    return changed if all(map(_is_function, changed.values())) else {}


def give_the_fault(mutant: Mutant) -> None:
    """Give the faulty code to the functions that have it, and forget what others computed."""
    from minikv.verify.functions import functions_of

    changed = functions_with(mutant)
    dotted = mutant.file.removesuffix(".py").replace("/", ".")
    for function in functions_of(importlib.import_module(f"minikv.{dotted}")):
        code = changed.pop(function.__code__.co_qualname, None)
        if code is not None:
            function.__code__ = code
    if changed:
        raise LookupError(f"{mutant.file} has no function {' or '.join(changed)} any more")
    modules = [module for name, module in sys.modules.items() if name.startswith("minikv")]
    for value in [value for module in modules for value in vars(module).values()]:
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def _codes(source: bytes | str, file: str) -> dict[str, CodeType]:
    """The code of a module, of its classes and of their functions, by name."""
    found = {}
    waiting = [compile(source, file, "exec", dont_inherit=True)]
    while waiting:
        code = waiting.pop()
        found[code.co_qualname] = code
        if not _is_function(code):
            waiting += [one for one in code.co_consts if isinstance(one, CodeType)]
    return found


def _is_function(code: CodeType) -> bool:
    """Whether a code is that of a function, and not of a module or a class."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED)


def _body(code: CodeType) -> tuple[object, ...]:
    """What makes two codes do the same; of a module or a class without the functions in it."""
    constants = tuple(
        _body(one) if isinstance(one, CodeType) else (type(one), repr(one))
        for one in code.co_consts
        if _is_function(code) or not isinstance(one, CodeType)
    )
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code, constants, names)


def _wholes(test: str) -> tuple[str, str]:
    """What names a case besides itself: the test that it is a case of, and its file."""
    return test.partition("[")[0], test.partition("::")[0]


def imported_in_place_of(path: Path, source: str) -> None:
    """From now on, import this source where the file would be imported."""
    original = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> Any:
        if Path(self.path) == path:
            return compile(source, self.path, "exec", dont_inherit=True)
        return original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def run_imported(mutant: Mutant, tests: list[str]) -> dict[str, str]:
    """The outcome of tests in this process, into which nobody has imported minikv before.

    The first few run before the files of the others are imported.
    """
    imported_in_place_of(PACKAGE / mutant.file, mutant.source)
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


def apart(call: Callable[[], dict[str, str]], most: float) -> dict[str, Any]:
    """What a call in a forked process says; a crash, or more seconds than `most`, is a kill."""
    answer, write = os.pipe()
    began = time.monotonic()
    process = os.fork()
    if not process:
        _say(call, write)
    os.close(write)
    ready, _, _ = select.select([answer], [], [], most)
    if not ready:
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with os.fdopen(answer, encoding="utf-8") as file:
        said = json.loads(file.read() or '{"outcome": "killed", "by": "crash"}')
    said = said if ready else {"outcome": "killed", "by": "stuck"}
    return said | {"seconds": round(time.monotonic() - began, 1)}


def _say(call: Callable[[], dict[str, str]], write: int) -> None:
    """Write down what a call says, and end the process."""
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    try:
        said = call()
    except BaseException as error:  # whatever a fault may lead to
        said = {"outcome": "killed", "by": type(error).__name__}
    os.write(write, json.dumps(said).encode())
    os._exit(0)


class Apart:
    """A process that has imported all tests, and runs some of them on a mutant when it is asked."""

    def __init__(self, files: list[str], mutants: list[Mutant], most: float) -> None:
        self._mutants = mutants
        self._most = most
        asked, ask = os.pipe()
        answered, answer = os.pipe()
        if not os.fork():
            os.close(ask)
            self._serve(files, os.fdopen(asked), answer)
        os.close(asked)
        os.close(answer)
        self._ask = os.fdopen(ask, "w")
        self._answers = os.fdopen(answered)

    def run(self, mutant: Mutant, tests: list[str]) -> dict[str, Any]:
        """The outcome of tests on one of the mutants."""
        print(json.dumps([self._mutants.index(mutant), tests]), file=self._ask, flush=True)
        return json.loads(self._answers.readline())

    def _serve(self, files: list[str], asked: TextIO, answer: int) -> None:
        """Answer until nobody asks any more."""

        def serve(bench: Bench) -> None:
            for line in asked:
                index, tests = json.loads(line)
                said = apart(partial(bench.run, self._mutants[index], tests), self._most)
                os.write(answer, f"{json.dumps(said)}\n".encode())

        silent = ["-q", "-s", "-n0", "-p", "no:cacheprovider", "--no-header", "--no-summary"]
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        pytest.main([*silent, *files], [Bench(serve)])
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


def write_last_outcomes(path: Path = OUTCOMES) -> None:
    """Keep a line for each mutant: its last outcome, and none of code that has changed."""
    found = outcomes(path)
    for name in stale(found):
        del found[name]
    lines = [json.dumps(record) + "\n" for record in found.values()]
    path.write_text("".join(lines), encoding="utf-8")


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


def run(todo: list[Mutant], walked: Walked, options: argparse.Namespace) -> None:
    """Run mutants one by one, and write each outcome down as soon as it is known.

    Against tests that are named it is imported, and has nothing else imported before.
    """
    most = 60.0 + STUCK * options.seconds
    files = sorted({test.partition("::")[0] for test in walked.seconds})
    ready = None if options.files else Apart(files, todo, most)
    for mutant in todo:
        tests, of = walked.tests(mutant, options.seconds)
        tests = options.files or tests
        said = None
        if ready and functions_with(mutant):
            said = ready.run(mutant, tests)
            if said["outcome"] == "untested":
                said = None
            elif "::" in said.get("by", "") and "" in walked.walking(mutant):
                again = apart(partial(run_imported, mutant, [said["by"]]), most)
                said = said if again["outcome"] == "killed" else None
        if said is None:
            said = apart(partial(run_imported, mutant, tests), most)
        record = {"mutant": mutant.name, **said, "tests": len(tests), "of": of}
        with open(OUTCOMES, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['outcome']:9} {said['seconds']:6.1f} s  {mutant.name}", flush=True)
        walked.learn(record)


def run_in_parallel(todo: list[Mutant], walked: Walked, options: argparse.Namespace) -> None:
    """`run`, in so many processes."""
    for mutant in todo:
        walked.walking(mutant)  # read now: coverage.py empties a file that a forked process reads
    processes = []
    for start in range(options.jobs):
        process = os.fork()
        if not process:
            run(todo[start :: options.jobs], walked, options)
            os._exit(0)
        processes.append(process)
    for process in processes:
        os.waitpid(process, 0)


def in_turns(strata: dict[str, list[Mutant]]) -> Iterator[Mutant]:
    """The first of each stratum, then the second of each, and so on."""
    for rank in range(max(map(len, strata.values()))):
        for made in strata.values():
            yield from made[rank : rank + 1]


def expect_nothing_fails() -> None:
    """The control: without a fault, the tests that killed one pass, as they are run here."""
    by = (record.get("by", "") for record in outcomes().values())
    tests = sorted({test for test in by if "::" in test})
    text = (PACKAGE / "decoder.py").read_bytes()
    sound = Mutant("decoder.py", "none", range(0), text, 0, 0, b"")
    said = apart(partial(run_imported, sound, tests), 3600.0)
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
    parser.add_argument(
        "--edges", action="store_true", help="every comparison and number of the core, not a draw"
    )
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--only", default="", help="mutants whose name has this in it")
    parser.add_argument("--files", nargs="+", help="run these tests, or files of them")
    parser.add_argument(
        "--control", action="store_true", help="see that without a fault these tests pass"
    )
    options = parser.parse_args()
    strata = edges() if options.edges else drawn()
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
        run_in_parallel(todo[: options.run], walked, options)
        write_last_outcomes()
        found = outcomes()
        if options.control:
            expect_nothing_fails()
    names = {stratum: [m.name for m in made] for stratum, made in strata.items()}
    table, survivors = score(names, found)
    for name in survivors:
        print(f"{found[name]['outcome']}: {name} ({found[name]['tests']} of {found[name]['of']})")
    if options.edges:
        print(*(line for line in blunt(found) if line.startswith("not run")), sep="\n")
    print(edge_summary() if options.edges else table)
    sys.exit(0)


if __name__ == "__main__":
    main()

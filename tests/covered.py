"""Which lines and branches of the core no default test walks: ``python tests/covered.py``.

    pip install -e ".[dev,test,numba,torch]"
    python tests/covered.py [--jobs 2] [--keep FOLDER] [--examples N]

The core is the forward pass, its sums and its memories. The tests that concern it run once, in
`jobs` processes, and the command fails if a line or a branch is left out. ``--keep`` leaves in a
folder which test walked which line and how long it took; ``mutation.py`` chooses tests by it. For
that alone few examples of each property will do (``--examples 8``), which may leave lines out.

A function that Numba compiles is no line of Python, and does not count: its bits are compared with
those of the Python that it stands for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = (
    "minikv/decoder.py",
    "minikv/layers.py",
    "minikv/projection.py",
    "minikv/rotary.py",
    "minikv/generation.py",
    "minikv/patching.py",
    "minikv/memory.py",
    "minikv/arithmetic/*.py",
    "minikv/backends/*.py",
    "minikv/caches/*.py",
    "minikv/caches/*/*.py",
)
TESTS = (
    "tests/arithmetic",
    "tests/backends",
    "tests/caches",
    "tests/test_completion.py",
    "tests/test_decoder.py",
    "tests/test_fingerprint.py",
    "tests/test_generation.py",
    "tests/test_layers.py",
    "tests/test_model.py",
    "tests/test_patching.py",
    "tests/test_projection.py",
    "tests/test_rotary.py",
    "tests/test_sizes.py",
    "tests/test_vectors.py",
    "proofs/test_t06_rows.py",
    "proofs/test_t07_order.py",
    "proofs/test_theorems.py",
)
# Checks are walked besides where ``mutation.py`` is to choose tests of them.
CHECKS = ("minikv/verify/*.py", "minikv/verify/theorems/*.py")
TESTS_OF_CHECKS = (
    "proofs/test_certificate.py",
    "proofs/test_controls_anywhere.py",
    "proofs/test_counterexamples.py",
    "proofs/test_lecture.py",
    "proofs/test_mutants.py",
    "proofs/test_weakened.py",
    "tests/test_bits.py",
    "tests/test_cases.py",
    "tests/test_shapes.py",
)
# What Numba compiles, and what it calls while it does, which is not each time.
COMPILED = [r"@njit\b", r"@overload\b", r"@intrinsic\b", r"def _pointer\b"]


@dataclass(eq=False)
class Walk:
    """A pytest plugin: says to coverage which test runs, and writes down how long each took."""

    coverage: object
    examples: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_configure(self) -> None:
        if self.examples:
            draw_few(self.examples)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        result = yield
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def tracer(data: Path, core: tuple[str, ...] = CORE) -> object:
    """coverage.py, set up for the core; its data goes to a file."""
    try:
        import coverage
    except ImportError:
        raise SystemExit('needs coverage: pip install -e ".[dev]"') from None
    made = coverage.Coverage(
        data_file=str(data),
        branch=True,
        include=[str(ROOT / name) for name in core],
        config_file=False,
    )
    for decorator in COMPILED:
        made.exclude(decorator)
    return made


def files_of(tests: tuple[str, ...]) -> list[str]:
    """The test files among these files and folders."""
    found = []
    for name in tests:
        path = ROOT / name
        inside = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
        found += [str(one.relative_to(ROOT)) for one in inside]
    return found


def draw_few(examples: int) -> None:
    """Let each property that does not say otherwise draw so many examples."""
    from hypothesis import settings

    settings.register_profile("few", max_examples=examples)
    settings.load_profile("few")


def walk(
    tests: list[str], data: Path, core: tuple[str, ...] = CORE, examples: int | None = None
) -> int:
    """Run tests in this process, and keep what they walked and how long they took."""
    made = tracer(data, core)
    plugin = Walk(made, examples)
    made.start()
    status = pytest.main(["-n0", "-p", "no:cacheprovider", *tests], plugins=[plugin])
    made.stop()
    made.save()
    data.with_name(f"{data.name}.json").write_text(json.dumps(plugin.seconds), encoding="utf-8")
    return int(status)


def walked(
    folder: Path,
    jobs: int,
    tests: tuple[str, ...],
    core: tuple[str, ...],
    examples: int | None = None,
) -> object:
    """Run tests in so many processes; what they walked together. Exits where a test fails."""
    files = files_of(tests)
    parts = [files[start::jobs] for start in range(jobs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path[1:])))}
    environment["MINIKV_HOME"] = str(folder / "no-weights")  # the default: no test needs them
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.setdefault(name, "1")
    running = []
    for number, part in enumerate(parts):
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--part",
            str(folder / f"walk.{number}"),
        ]
        command += ["--core", *core, "--tests", *part]
        command += ["--examples", str(examples)] if examples else []
        running.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    statuses = [process.wait() for process in running]
    if any(statuses):
        raise SystemExit("a test failed: what was walked says nothing")
    made = tracer(folder / "walked", core)
    made.combine([str(folder / f"walk.{number}") for number in range(jobs)], keep=True)
    made.save()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--keep", type=Path, help="a folder that keeps which test walked what")
    parser.add_argument("--core", nargs="+", default=CORE, help="files to look at")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files and folders of tests")
    parser.add_argument("--examples", type=int, help="of each property (default: as in tests)")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part = (list(options.tests), options.part, tuple(options.core), options.examples)
        raise SystemExit(walk(*part))
    with contextlib.ExitStack() as stack:
        folder = (
            options.keep.resolve()
            if options.keep
            else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        folder.mkdir(parents=True, exist_ok=True)
        tests = tuple(options.tests)
        core = tuple(options.core)
        if options.keep and tests == TESTS:
            tests += TESTS_OF_CHECKS
            core += CHECKS
        made = walked(folder, options.jobs, tests, core, options.examples)
        include = [str(ROOT / name) for name in options.core]
        share = made.report(show_missing=True, skip_covered=False, include=include)
    print(f"{share:.2f} % of the core's lines and branches are walked by default tests")
    raise SystemExit(share < 100.0)


if __name__ == "__main__":
    main()

"""``minikv doctor``: is this machine ready? What a lecturer runs before class."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from .. import __version__
from ..environment import environment
from ..errors import MinikvError
from ..extras import EXTRAS, missing
from ..fingerprint import fingerprint
from ..model import random_model, tiny_config
from ..weights.fetch import KNOWN, home, is_fetched
from .options import add_json
from .output import check_output, deliver, print_table, readable

SUMMARY = "whether everything here works, and what is missing"
DESCRIPTION = """\
Check Python, NumPy and its BLAS, the golden fingerprint of exact arithmetic, memory and disk, the
optional packages, and which models are there. What is marked "broken" must be mended, what is
"missing" is needed by some commands only. Exit code 1 if something is broken."""
EXAMPLES = """\
  minikv doctor
  minikv doctor --json"""

GOLDEN = "2d6582066fd41e111d4e08334de186184c9f528db8bdd95951417830e0af1419"
"""The fingerprint of the model below, on every machine."""

OK = "ok"
MISSING = "missing"
BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One line of the answer: what was looked at, how it is, and what was found."""

    what: str
    state: str
    found: str


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_json(parser)


def run(args: Namespace) -> int:
    """Look at everything, and print."""
    check_output(args)
    findings = list(examine())
    if not deliver(args, {"findings": [asdict(finding) for finding in findings]}):
        rows = ([each.what, each.state, each.found] for each in findings)
        print_table(["looked at", "state", "found"], rows, verdicts=["state"])
    return int(any(finding.state == BROKEN for finding in findings))


def examine() -> Iterator[Finding]:
    """Every finding, the core first."""
    about = environment()
    yield Finding("minikv", OK, f"{__version__}, Python {about['python']} ({sys.executable})")
    yield Finding("machine", OK, f"{about['cpu']}, {about['platform']}")
    yield Finding(
        "NumPy", OK, f"{about['numpy']}, {about['blas']}, BLAS threads: {about['threads']}"
    )
    yield exact_arithmetic()
    yield memory()
    yield disk()
    for extra, (_, purpose) in EXTRAS.items():
        advice = missing(extra)
        if advice:
            yield Finding(f"extra {extra}", MISSING, f"{purpose}: {advice}")
        else:
            yield Finding(f"extra {extra}", OK, purpose)
    for name in KNOWN:
        if is_fetched(name):
            yield Finding("model", OK, f"{name} in {home()}")
    if not any(map(is_fetched, KNOWN)):
        yield Finding("model", MISSING, "none is fetched: run  minikv fetch")


def exact_arithmetic() -> Finding:
    """The golden fingerprint: of a small model with given weights, so that nothing is drawn."""
    try:
        model = random_model(tiny_config(), seed=0, arithmetic="exact")
        found = fingerprint(model, range(1, 33))
    except MinikvError as error:
        return Finding("exact arithmetic", BROKEN, str(error))
    if found != GOLDEN:
        return Finding(
            "exact arithmetic",
            BROKEN,
            f"the fingerprint is {found[:16]}..., on every other machine {GOLDEN[:16]}...: "
            "please report it, with  minikv doctor --json",
        )
    return Finding("exact arithmetic", OK, f"golden fingerprint {found[:16]}...")


def memory() -> Finding:
    """How much memory is free, where the system says so."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return Finding("memory", OK, "this system does not say")
    return Finding("memory", OK, f"{readable(free * 1024)} free")


def disk() -> Finding:
    """How much room there is where models are kept, and whether they can be."""
    folder = home()
    while not folder.exists():
        folder = folder.parent
    room = readable(shutil.disk_usage(folder).free)
    if not os.access(folder, os.W_OK):
        return Finding("disk", MISSING, f"{folder} cannot be written to: set MINIKV_HOME to fetch")
    return Finding("disk", OK, f"{room} free in {home()}, where models go")

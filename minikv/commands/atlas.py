"""``minikv atlas``: what each way of treating the cache keeps and loses."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .options import add_json
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..atlas import Comparison, Entry

SUMMARY = "what each way of treating the cache keeps and loses"
DESCRIPTION = """\
Without NAME, list sixty-two systems that evict, select, quantise, merge, reuse, inject, share or
speculate, and three studies: kind, verdict, title. With NAME, say what its state is, what is exact,
bounded or lost, which theorem or counter-example says so, and run its smallest demonstration, on a
random model or on arrays, which takes about a second and needs no weights. The exit code is 1 where
a comparison does not come out as the entry says."""
EXAMPLES = """\
  minikv atlas
  minikv atlas cake
  minikv atlas lookahead --json"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a system; without it, all")
    add_json(parser, "entries and comparisons")


def run(args: Namespace) -> int:
    """List all, or show one."""
    from ..atlas import entries, entry_named

    if args.name is None:
        _list(list(entries().values()), args.json)
        return 0
    return _show(entry_named(args.name), args.json)


def figures(found: Entry) -> dict[str, object]:
    """An entry as JSON can hold it."""
    return {
        "name": found.name,
        "title": found.title,
        "arxiv": found.arxiv,
        "kind": str(found.kind),
        "state": found.state,
        "verdict": str(found.verdict),
        "reason": found.reason,
        "cure": found.cure,
        "read": found.read,
        "theorems": list(found.theorems),
        "counterexamples": list(found.counterexamples),
        "file": found.file,
    }


def _list(found: list[Entry], as_json: bool) -> None:
    if as_json:
        print_json({"entries": [figures(entry) for entry in found]})
        return
    rows = [[entry.name, entry.kind, entry.verdict, entry.title] for entry in found]
    print_table(["name", "kind", "verdict", "title"], rows)
    built = sum(entry.built for entry in found)
    print(f"\n{len(found)} systems, {built} of them run here;  minikv atlas NAME  shows one")


def _show(found: Entry, as_json: bool) -> int:
    start = time.perf_counter()
    comparisons: list[Comparison] = []
    if found.demonstrate is not None:
        comparisons = list(found.demonstrate())
    seconds = time.perf_counter() - start
    wrong = not all(comparison.holds for comparison in comparisons)
    if as_json:
        print_json(
            figures(found)
            | {
                "comparisons": [vars(comparison) for comparison in comparisons],
                "seconds": seconds,
            }
        )
        return int(wrong)
    number = f"; arXiv {found.arxiv}" if found.arxiv else ""
    print(f"{found.title}: {found.kind}, {found.verdict}{number}\n")
    told = {
        "state": found.state,
        "why": found.reason,
        "cure": found.cure,
        "theorems": ", ".join(found.theorems),
        "counter-examples": ", ".join(found.counterexamples),
        "file": found.file,
        "read": found.read,
    }
    for name, words in told.items():
        if words:
            print(f"  {name}: {words}")
    if not comparisons:
        return 0
    print()
    for comparison in comparisons:
        mark = "as said" if comparison.holds else "NOT AS SAID"
        kind = "control: " if comparison.control else ""
        print(f"  {mark}: {kind}{comparison.what}: {comparison.said}")
    print(f"\n{len(comparisons)} comparisons in {seconds:.2f} s")
    return int(wrong)

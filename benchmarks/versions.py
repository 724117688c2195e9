"""This version of minikv beside an older one, in one run: what a change costs.

    python -m benchmarks.versions ca26cc4            # a commit; random weights, nothing is fetched
    python -m benchmarks.versions ca26cc4 --threads 1 --clock cpu --rounds 30 --write

The older one is taken out of git into a scratch folder. For each contender both load the same file
in a process of its own, and take turns; who goes first changes from round to
round. A ratio is taken within each round, new by old; printed are its median and quartiles. Both
must give the same greedy tokens. ``--write`` keeps the table in ``VERSIONS.md``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .contenders import CLOCKS
from .peers import MINIKV, TURN_TOKENS, Bench, Worker, note

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "VERSIONS.md"
TASKS = ("decode 16", "decode 512", "prefill 128", "prefill 512")
TARGET = 1.03


@dataclass(frozen=True)
class Measured:
    """One contender at one task: the ratio of times, new by old, in each round."""

    contender: str
    task: str
    ratios: tuple[float, ...]
    same_tokens: bool

    @property
    def row(self) -> tuple[str, ...]:
        """As the table has it."""
        low, median, high = statistics.quantiles(self.ratios, n=4)
        verdict = "yes" if median <= TARGET else "no"
        tokens = "same" if self.same_tokens else "OTHER"
        quartiles = f"{low:.3f} to {high:.3f}"
        return (self.contender, self.task, f"{median:.3f}", quartiles, verdict, tokens)


def take_out(commit: str, folder: Path) -> str:
    """Put a commit's package beside this version's timing code; its short name."""
    name = git("rev-parse", "--short", f"{commit}^{{commit}}").strip()
    archive = subprocess.run(
        ["git", "archive", name, "minikv"], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    shutil.copytree(
        ROOT / "benchmarks", folder / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
    )
    return name


def git(*arguments: str) -> str:
    """What git prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks.versions: git: {done.stderr.strip()}")
    return done.stdout


def compare(
    bench: Bench, contender: str, old: Path, tasks: Sequence[str], rounds: int
) -> list[Measured]:
    """Let both versions take turns with one contender."""
    note(f"loading {contender}, twice")
    workers = {
        folder: Worker(contender, bench.folder, bench.environment, folder) for folder in (old, ROOT)
    }
    try:
        missing = [w.ready["missing"] for w in workers.values() if "missing" in w.ready]
        if missing:
            bench.missing.append(missing[0])
            return []
        bench.versions |= workers[ROOT].ready["versions"]
        same_tokens = workers[old].ready["greedy"] == workers[ROOT].ready["greedy"]
        ratios: dict[str, list[float]] = {task: [] for task in tasks}
        for number in range(rounds + 1):
            order = [old, ROOT] if number % 2 else [ROOT, old]
            for task in tasks:
                note(f"{contender}, round {number} of {rounds}: {task}")
                seconds = {
                    folder: bench.quiet.turn(workers[folder], task, TURN_TOKENS) for folder in order
                }
                if number:  # the first round is not counted
                    ratios[task].append(seconds[ROOT] / seconds[old])
        return [Measured(contender, task, tuple(ratios[task]), same_tokens) for task in tasks]
    finally:
        for worker in workers.values():
            worker.close()


def render(bench: Bench, about: str, found: Sequence[Measured]) -> str:
    """The table, in Markdown."""
    head = ("contender", "task", "new / old", "quartiles", f"at most {TARGET}", "greedy tokens")
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head))]
    lines += [f"| {' | '.join(measured.row)} |" for measured in found]
    command = " ".join(["python -m benchmarks.versions", *sys.argv[1:]])
    machine = [f"* {key}: {value}" for key, value in bench.machine(command=command).items()]
    missing = [f"* left out: {each}" for each in bench.missing]
    return "\n".join(["# Old and new", "", about, "", *machine, *missing, "", *lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versions",
        description="Time this version of minikv beside an older one.",
    )
    parser.add_argument("commit", help="the older version, as git names it")
    parser.add_argument("--model", metavar="FOLDER", help="default: random weights, SmolLM's shape")
    parser.add_argument("--contenders", nargs="+", choices=MINIKV, default=list(MINIKV))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="TASK")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count (default 15)")
    parser.add_argument("--threads", type=int, default=2, help="of both versions (default 2)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="as in benchmarks")
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {TABLE.name}")
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error(f"--rounds {args.rounds}: quartiles need at least 2")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "old"
        old.mkdir()
        name = take_out(args.commit, old)
        weights = args.model or str(Path(scratch) / "weights")
        if not args.model:
            make = [sys.executable, "-m", "benchmarks.contenders", "random", weights]
            subprocess.run(make, check=True, cwd=ROOT)
        bench = Bench(
            str(Path(weights).resolve()), Path(scratch), args.threads, args.clock, args.patience
        )
        for contender in args.contenders:
            found += compare(bench, contender, old, args.tasks, args.rounds)
        weights_are = args.model or "random weights of SmolLM-135M's shape"
        about = (
            f"This version's time by that of {name}, median of {args.rounds} rounds; {weights_are}."
        )
        text = render(bench, about, found)
    print(text)
    if args.write:
        TABLE.write_text(text, encoding="utf-8")
    return int(not all(measured.same_tokens for measured in found))


if __name__ == "__main__":
    sys.exit(main())

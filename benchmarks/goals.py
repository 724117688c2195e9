"""Goals of speed beside the floors of this machine: what is reached, and what is not.

    python -m benchmarks.goals --threads 1 --write      # processor time; random weights
    python -m benchmarks.goals --threads 2 --write      # wall time
    python -m benchmarks.goals --only "prefill 512"     # some of it
    python -m benchmarks.goals --quick                  # two rounds, without the longest texts

Contenders take turns, a ratio is taken within each round, and the table shows the median and the
quartiles over the rounds, as in `benchmarks.peers`. Beside them stand the floor, which
`benchmarks.roofline` computes from rates that the same run measures, and the goal. ``--write``
keeps the table in ``GOALS.md``, in the section of one thread or that of two.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import roofline
from .__main__ import random_folder, resolved
from .contenders import AFTER_PROMPT, CLOCKS, HALVED
from .peers import F32, SIXTEEN_BITS, TURN_TOKENS, Bench, note, peaks
from .report import columns
from .roofline import Counts, Rates

TABLE = Path(__file__).parent / "GOALS.md"
SECTIONS = {1: "One thread", 2: "Two threads"}
FRESH = 5  # fresh processes, for the first token and for memory
SHORT = 16  # tokens of their prompt

# What a time is divided by; the name of a contender is its time for the same task.
BARE = "bare"
READING = "reading its bytes"
PREFILL = "its prefill"
PRODUCTS = "K and V's products, and its decoding"
FULL = "its full cache"
NEEDED = "weights and cache"
TRANSFORMERS = "transformers"

ALL, REPLAY = "residual:every@1", "residual:embedding@1"  # policies, as ``--policy`` names them


@dataclass(frozen=True)
class Goal:
    """A contender's task, what its time is divided by, and what that should be at most.

    Attributes
    ----------
    contender, task : str
        The task is ``"prefill N"``, ``"decode N"``, ``"decode N POLICY"``, ``"first N"`` (the first
        token after so many, in a fresh process) or ``"peak N"`` (memory).
    unit : str
    one, two : float or None
        On one thread, and on two; None where nothing is set.
    """

    contender: str
    task: str
    unit: str = BARE
    one: float | None = None
    two: float | None = None

    def limit(self, threads: int) -> float | None:
        return {1: self.one, 2: self.two}[threads]

    @property
    def work(self) -> str:
        return f"{self.contender} {self.task}"


GOALS = (
    Goal("float32/numpy", "prefill 512", one=1.22, two=1.35),
    Goal("float32/numpy", "prefill 2048", one=1.65, two=1.9),
    Goal("float32/numba", "prefill 512", one=1.18, two=1.25),
    Goal("float32/numba", "prefill 2048", one=1.6, two=1.7),
    Goal("exact/numba", "prefill 512", one=2.4, two=2.6),
    Goal("exact/numba", "prefill 2048", one=3.3, two=3.6),
    Goal("exact/numpy", "prefill 512", one=2.7, two=3.6),
    Goal("exact/numpy", "prefill 2048", one=4.3, two=5.0),
    Goal("float32/numpy", "prefill 128", F32, two=1.0),
    Goal("float32/numpy", "prefill 512", F32, two=1.0),
    Goal("float32/numpy", "prefill 2048", F32, two=1.05),
    Goal("float32/numba", "prefill 128", F32, two=1.0),
    Goal("float32/numba", "prefill 512", F32, two=1.0),
    Goal("float32/numba", "prefill 2048", F32, two=1.05),
    Goal("exact/numba", "decode 16", one=0.72),
    Goal("exact/numba", "decode 512", one=0.78),
    Goal("exact/numba", "decode 2048", one=0.95),
    Goal("exact/numba", "decode 16", F32, two=1.0),
    Goal("exact/numba", "decode 512", F32, two=1.0),
    Goal("exact/numba", "decode 2048", F32, two=1.0),
    Goal("float32/numba", "decode 2048", one=0.95),
    Goal("float32/numba", "decode 2048", "float32/numpy", two=1.0),
    Goal(HALVED, "decode 16", READING, one=1.6),
    Goal(HALVED, "decode 16", SIXTEEN_BITS, two=1.3),
    Goal("exact/numpy", "decode 2048", "float32/numpy", one=2.4, two=2.4),
    Goal("float32/numpy", f"first {SHORT}", TRANSFORMERS, two=0.15),
    Goal("exact/numba", f"first {SHORT}", TRANSFORMERS, two=0.31),
    Goal("float32/numpy", f"decode 512 {REPLAY}", PREFILL, one=1.0),
    Goal("exact/numba", f"decode 512 {REPLAY}", PREFILL, one=1.0),
    Goal("float32/numpy", f"decode 2048 {ALL}", PRODUCTS, one=1.2),
    Goal("exact/numba", f"decode 2048 {ALL}", PRODUCTS, one=1.2),
    Goal("float32/numpy", "decode 512 h2o@512", FULL, one=1.1, two=1.15),
    Goal("float32/numpy", "decode 512 tova@512", FULL, one=1.1, two=1.15),
    Goal("float32/numba", f"peak {SHORT}", NEEDED, one=1.1, two=1.1),
)
MODULES = {"transformers": "torch", "numba": "numba"}  # that part of a contender's name needs


@dataclass(frozen=True)
class Row:
    """What became of a goal; no ratios where it was not measured."""

    goal: Goal
    limit: float | None
    ratios: tuple[float, ...] = ()
    floor: float | None = None
    amounts: tuple[str, str, str] = ("", "", "")  # time, flops and bytes, in words

    @property
    def cells(self) -> list[str]:
        """As the table has it."""
        named = [f"`{self.goal.work}`", self.goal.unit]
        limit = "" if self.limit is None else f"{self.limit:.2f}"
        if not self.ratios:
            return [*named, "not measured", "", "", limit, "", *self.amounts]
        low, median, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        floor = "" if self.floor is None else f"{self.floor:.2f}"
        verdict = ""
        if self.limit is not None:
            verdict = "met" if round(median, 2) <= self.limit else "MISSED"
            if verdict == "MISSED" and self.floor is not None and self.limit < self.floor:
                verdict = "MISSED: the goal is below the floor"
        found = [f"{median:.2f}", f"{low:.2f} to {high:.2f}", floor, limit, verdict]
        return [*named, *found, *self.amounts]


HEAD = ["work", "in units of", "now", "quartiles", "floor", "goal", "verdict", "time"]
HEAD += ["flops", "bytes"]

Term = tuple[float, str, str]  # so many times a contender's time for a task


def fraction(goal: Goal, counts: Counts) -> tuple[list[Term], list[Term]]:
    """The times that make a goal's ratio: the sum of the first by the sum of the second."""
    name = goal.contender
    task = goal.task
    size = int(task.split()[1])
    took = (1.0, name, task)
    full = (1.0, name, f"decode {size}")
    if goal.unit == READING:
        share = counts.bytes(task, bytes_a_weight(name)) / (4 * counts.weights)
        return [took], [(share, BARE, "rate reading")]
    if goal.unit == PREFILL:  # the new token itself is decoded too
        return [took, (-1.0, name, full[2])], [(1.0, name, f"prefill {size}")]
    if goal.unit == PRODUCTS:
        made = size * counts.num_hidden_layers * 2 * counts.key_width * counts.hidden_size
        arithmetic = name.split("/")[0]
        share = made / (roofline.ROWS * counts.block)
        return [took], [(share, BARE, f"rate products:{arithmetic}"), full]
    if goal.unit == FULL:
        return [took], [full]
    return [took], [(1.0, goal.unit, task)]


def bytes_a_weight(contender: str) -> int:
    """Of a weight as the contender holds it."""
    return {HALVED: 2, "exact/numpy": 8}.get(contender, 4)


def milliseconds(seconds: float) -> str:
    """Four digits or so.

    Examples
    --------
    >>> milliseconds(0.0281234), milliseconds(11.7301)
    ('28.12 ms', '11730 ms')
    """
    return f"{1e3 * seconds:.{2 if seconds < 0.1 else 0}f} ms"


def is_fresh(goal: Goal) -> bool:
    """Whether it is measured in fresh processes."""
    return goal.unit in (TRANSFORMERS, NEEDED)


def plan(goals: Sequence[Goal], counts: Counts) -> dict[str, list[str]]:
    """The tasks of each contender that these goals need, none of them a fresh process's."""
    found: dict[str, list[str]] = {}
    for goal in goals:
        for terms in fraction(goal, counts):
            for _, name, task in terms:
                found.setdefault(name, []).append(task)
    floored = [goal.contender for goal in goals if goal.task.startswith("prefill")]
    found.setdefault(BARE, []).extend(roofline.tasks(list(dict.fromkeys(floored))))
    return {name: list(dict.fromkeys(tasks)) for name, tasks in found.items()}


def lacking(name: str) -> str:
    """The module that a contender needs and that is not installed; empty if none."""
    for part, module in MODULES.items():
        if part in name and importlib.util.find_spec(module) is None:
            return module
    return ""


class Run:
    """What one run measures, and the rows that it makes of it.

    The goals of one contender are measured together, with `bare` and what else they are held
    against in the same rounds: so few models are in memory at a time.
    """

    def __init__(self, bench: Bench, goals: Sequence[Goal], rounds: int) -> None:
        self.bench = bench
        self.goals = goals
        self.counts = Counts.of(bench.folder)
        self.seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
        timed = [goal for goal in goals if not is_fresh(goal)]
        measured = list(dict.fromkeys(goal.contender for goal in timed))
        fresh = list(dict.fromkeys(goal.contender for goal in goals if is_fresh(goal)))
        if any(goal.unit == TRANSFORMERS for goal in goals):
            fresh.append(TRANSFORMERS)
        wanted = plan(timed, self.counts)
        self.paths = bench.paths(
            [name for name in dict.fromkeys([*wanted, *fresh]) if self.is_there(name)]
        )
        for number, name in enumerate(measured, start=1):
            if name not in self.paths:
                continue
            note(f"{name}, {number} of {len(measured)} contenders", lasting=True)
            of_one = plan([goal for goal in timed if goal.contender == name], self.counts)
            paths = {each: self.paths[each] for each in of_one if each in self.paths}
            self.seconds[name] = bench.seconds(paths, of_one, rounds)
        starts = {name: self.paths[name] for name in fresh if name in self.paths}
        bench.fresh(starts, [SHORT], 1)  # not counted: kernels are compiled, files are read
        self.fresh = bench.fresh(starts, [SHORT], FRESH)
        if not self.seconds:
            rates = {BARE: roofline.tasks([])}
            self.seconds[BARE] = bench.seconds({BARE: bench.folder}, rates, rounds)
        self.rates = Rates.measured(self.rate_seconds(), self.counts, bench.threads)

    def is_there(self, name: str) -> bool:
        """Whether a contender can be measured; it is noted if not."""
        if module := lacking(name):
            self.bench.missing.append(f"{name}: {module} is not installed")
            return False
        return True

    def rate_seconds(self) -> dict[str, list[float]]:
        """Of the rates' tasks, over all rounds."""
        found: dict[str, list[float]] = {}
        for measured in self.seconds.values():
            for task, took in measured[BARE].items():
                found.setdefault(task, []).extend(took)
        return found

    def rows(self) -> Iterator[Row]:
        """One for each goal."""
        for goal in self.goals:
            limit = goal.limit(self.bench.threads)
            if goal.unit == TRANSFORMERS:
                yield self.first_token(goal, limit)
            elif goal.unit == NEEDED:
                yield self.peak(goal, limit)
            else:
                yield self.timed(goal, limit)

    def timed(self, goal: Goal, limit: float | None) -> Row:
        """A ratio of times, round by round."""
        seconds = self.seconds.get(goal.contender, {})
        terms = fraction(goal, self.counts)
        if not all(task in seconds.get(name, {}) for part in terms for _, name, task in part):
            return Row(goal, limit)
        above, below = (
            [
                sum(share * seconds[name][task][number] for share, name, task in part)
                for number in range(len(seconds[goal.contender][goal.task]))
            ]
            for part in terms
        )
        ratios = tuple(x / y for x, y in zip(above, below, strict=True))
        took = statistics.median(seconds[goal.contender][goal.task])
        amounts = (milliseconds(took), "", "")
        if len(goal.task.split()) == 2:
            flops = self.counts.flops(goal.task)
            read = self.counts.bytes(goal.task, bytes_a_weight(goal.contender))
            amounts = (amounts[0], f"{flops / 1e9:.4g} G", f"{read / 1e6:.4g} MB")
        return Row(goal, limit, ratios, self.floor(goal), amounts)

    def floor(self, goal: Goal) -> float | None:
        """About the least that the ratio can be; 1 where it is divided by what cannot be less."""
        if goal.unit == PREFILL:
            return self.counts.replayed
        if goal.unit in (READING, PRODUCTS, FULL):
            return 1.0
        if goal.unit != BARE:
            return None
        bare = statistics.median(self.seconds[goal.contender][BARE][goal.task])
        if goal.task.startswith("prefill"):
            rows = int(goal.task.split()[1])
            return roofline.prefill_floor(self.counts, self.rates, goal.contender, rows, bare)
        return roofline.decode_floor(self.counts, self.rates, goal.task, bare)

    def first_token(self, goal: Goal, limit: float | None) -> Row:
        """Fresh processes side by side; importing, and reading the weights once, are the floor."""
        if not {goal.contender, goal.unit} <= self.fresh.keys():
            return Row(goal, limit)
        measure = "processor" if self.bench.clock == "cpu" else "first token"
        ours, theirs = (
            self.fresh[name][str(SHORT)][measure] for name in (goal.contender, goal.unit)
        )
        imports = statistics.median(self.fresh[goal.contender]["imports"][measure])
        least = imports + 4 * self.counts.weights / self.rates.reading
        return Row(
            goal,
            limit,
            tuple(x / y for x, y in zip(ours, theirs, strict=True)),
            least / statistics.median(theirs),
            (milliseconds(statistics.median(ours)), "", ""),
        )

    def peak(self, goal: Goal, limit: float | None) -> Row:
        """Memory beyond that of importing, by what weights and cache need."""
        if goal.contender not in self.fresh:
            return Row(goal, limit)
        needed = 4 * self.counts.weights + self.counts.cache_bytes(SHORT + AFTER_PROMPT)
        used = peaks(self.fresh, goal.contender, str(SHORT))
        amounts = ("", "", f"{statistics.median(used) / 1e6:.4g} MB")
        return Row(goal, limit, tuple(each / needed for each in used), 1.0, amounts)


ABOUT = f"""# Goals and floors

What `python -m benchmarks.goals --threads 1 --write`, and the same with `--threads 2`, measured on
one machine, with goals beside it, and floors: what the work takes at the least, by its counts and
the rates that the same run measured. Below 1 is faster, or smaller. Contenders take turns,
a ratio is taken within each round; its median and quartiles are those over the rounds. *time* is
the work's own, a median; *flops* and *bytes* are the least that it needs, by the model's shape. The
goals were set on an AMD EPYC with AVX-512; on another machine a goal may lie below the floor.

* `bare`: the float32 products of the same rows with all weight matrices, in the same round.
* *{READING}*: as many bytes as its weights and cache have, at the speed at which the same
  round read memory.
* `{REPLAY}` makes K and V of all earlier tokens again, from their rows of the embedding, at
  each token; that time, less that of a token with the full cache, by that of a prompt of the same
  length.
* `{ALL}` makes them from the streams of all layers. *{PRODUCTS}*: the
  products that make K and V, as fast as BLAS in the same round, and a token with the full cache.
* `{SIXTEEN_BITS}`: llama.cpp with the same weights rounded to bfloat16.
* `first {SHORT}`: from the start of a process to the first token after a prompt of {SHORT}.
* `peak {SHORT}`: the most memory of such a process, loading and {AFTER_PROMPT} more tokens
  included, less that of importing.
"""


def section(run: Run, about: Mapping[str, str]) -> str:
    """One run, in Markdown."""
    rows = list(run.rows())
    verdicts = [row.cells[6] for row in rows if row.cells[6]]
    facts = [f"* {key}: {value}" for key, value in run.bench.machine(**about).items()]
    facts += [f"* not measured: {reason}" for reason in dict.fromkeys(run.bench.missing)]
    return "\n\n".join(
        [
            f"## {SECTIONS[run.bench.threads]}",
            "\n".join(facts),
            f"{verdicts.count('met')} of {len(verdicts)} goals that were measured are met.",
            columns([HEAD, *(row.cells for row in rows)]),
            "The rates of this run, of which the floors are made:",
            columns(run.rates.table()),
        ]
    )


def merged(page: str, new: str) -> str:
    """The page with a section in place of that of the same name; one thread comes first."""
    found = re.split(r"(?m)^(?=## )", page)[1:]
    parts = {part.splitlines()[0]: part.strip() for part in [*found, new]}
    order = [f"## {name}" for name in SECTIONS.values()]
    return "\n\n".join([ABOUT.strip(), *(parts[name] for name in order if name in parts)]) + "\n"


def commit() -> str:
    """What is measured, as git names it; *dirty* where files were changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=TABLE.parent, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def selected(threads: int, only: str, quick: bool) -> list[Goal]:
    """The goals for so many threads, or some of them."""
    return [
        goal
        for goal in GOALS
        if (goal.limit(threads) is not None or goal.unit in (BARE, TRANSFORMERS))
        and only in f"{goal.work} {goal.unit}"
        and not (quick and "2048" in goal.task)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.goals",
        description="Goals of speed beside the floors of this machine.",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--model", help="fetched name or folder (default: --random)")
    weights.add_argument(
        "--random", action="store_true", help="random weights of SmolLM-135M's shape"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows that hold this text")
    parser.add_argument("--quick", action="store_true", help="two rounds, without 2048 tokens")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 5)")
    parser.add_argument("--threads", type=int, choices=SECTIONS, default=1)
    parser.add_argument(
        "--clock", choices=CLOCKS, help="default: processor time of one thread, wall time of two"
    )
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {TABLE.name}")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    if rounds < 2:
        parser.error(f"--rounds {rounds}: quartiles need at least 2")
    if args.write and args.only:
        parser.error("--write keeps a whole run: leave out --only")
    goals = selected(args.threads, args.only, args.quick)
    if not goals:
        parser.error(f"--only {args.only!r}: no goal on {args.threads} threads holds this text")
    words = sys.argv[1:] if argv is None else argv
    about = {
        "command": shlex.join(["python", "-m", "benchmarks.goals", *words]),
        "date": time.strftime("%d %B %Y"),
        "weights": args.model or "random, of SmolLM-135M's shape",
        "rounds": f"{rounds} after a warm-up, {TURN_TOKENS} tokens a turn, 1 of a replay",
        "commit": commit(),
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
    }
    if args.quick:
        about["quick"] = "few rounds and short texts: no result"
    clock = args.clock or ("cpu" if args.threads == 1 else "wall")
    if (clock, args.threads) == ("cpu", 2):
        parser.error("--clock cpu counts the time of all threads together: use --threads 1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = resolved(args.model) if args.model else random_folder(scratch)
        bench = Bench(folder, Path(scratch), args.threads, clock, args.patience)
        text = section(Run(bench, goals, rounds), about)
    note("")
    print(text)
    if args.write:
        page = TABLE.read_text(encoding="utf-8") if TABLE.exists() else ""
        TABLE.write_text(merged(page, text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Speed and memory of minikv beside its peers and beside bare products, in one run.

Every contender lives in a process of its own, so that the spinning threads of one BLAS do not slow
the next, and they take turns: A B C, A B C, ... after one round that is not counted. A ratio is
taken within each round; printed are the median over the rounds and the smallest and largest. This
process stays small and imports nothing but the standard library, because a child's ``ru_maxrss``
starts at its parent's.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contenders import HALVED, LLAMA_CPP

F32, STORED = LLAMA_CPP + "float32", LLAMA_CPP + "4-bit"
SIXTEEN_BITS = LLAMA_CPP + "16-bit"
MINIKV = ("float32/numpy", "float32/numba", "exact/numpy", "exact/numba")
CONTENDERS = (*MINIKV, HALVED, "transformers", F32, STORED, "bare")
TURN_TOKENS = 8

Target = float | None


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    decode: tuple[int, ...] = (16, 512, 2048)  # tokens of context
    prefill: tuple[int, ...] = (128, 512, 2048)
    memory: tuple[int, ...] = (16, 512, 2048)
    rounds: int = 7
    fresh: int = 3  # fresh processes for load time, first token and memory
    starts: int = 10  # of ``import minikv`` and ``minikv --help``


QUICK = Sizes((16,), (512,), (16,), rounds=2, fresh=1, starts=3)

# contender, compared with, and targets by task; a task that is not named here has none
RATIOS: tuple[tuple[str, str, str, Mapping[int, float]], ...] = (
    ("decode", "float32/numpy", "transformers", {16: 0.90, 512: 0.90}),
    ("decode", "exact/numba", "transformers", {16: 1.00, 512: 1.00, 2048: 1.00}),
    ("decode", "float32/numpy", "bare", {16: 1.20, 512: 1.20}),
    ("decode", "exact/numba", "bare", {16: 1.15, 512: 1.15}),
    ("decode", HALVED, "bare", {}),
    ("decode", "exact/numpy", "float32/numpy", {16: 2.30, 512: 2.30}),
    ("decode", "float32/numpy", F32, {}),
    ("decode", "exact/numba", F32, {}),
    ("decode", "exact/numba", STORED, {}),
    ("prefill", "float32/numpy", "transformers", {512: 1.60}),
    ("prefill", "exact/numba", "transformers", {512: 2.20}),
    ("prefill", "float32/numpy", "bare", {}),
    ("prefill", "exact/numpy", "float32/numpy", {512: 2.50}),
    ("prefill", "float32/numpy", F32, {}),
    ("prefill", "exact/numba", F32, {}),
    ("prefill", "exact/numba", STORED, {}),
)
LOAD_SECONDS = 3.0
PEAK = 1.3  # of weights and cache, NumPy's float32
PEAK_NUMBA = 1.1  # of float32 weights alone, at the shortest text
STARTS = {"import minikv": 0.3, "minikv --help": 0.5}  # seconds


class Worker:
    """A contender's process, on the code that stands in `folder`."""

    def __init__(
        self, name: str, path: str, environment: dict[str, str], folder: Path | None = None
    ) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", "serve", name, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        self.ready = self.read()

    def read(self) -> Any:
        line = self.process.stdout.readline()  # type: ignore[union-attr]  # a pipe
        if not line:
            raise SystemExit(f"benchmarks: the process of {self.name} ended, see above")
        return json.loads(line)

    def turn(self, task: str, tokens: int) -> float:
        print(json.dumps({"task": task, "tokens": tokens}), file=self.process.stdin, flush=True)
        return self.read()

    def ticks(self) -> int:
        """Clock ticks of processor time that this process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]  # a pipe
        self.process.wait()


class Quiet:
    """Takes turns while nobody else uses the processor, as far as `patience` seconds go (Linux)."""

    def __init__(self, patience: float) -> None:
        self.patience, self.disturbed, self.turns = patience, 0, 0

    def turn(self, each: Worker, task: str, tokens: int) -> float:
        """One turn; while patience lasts, after quiet has come, and again if it was disturbed."""
        while True:
            began = time.monotonic()
            before = busy_ticks()
            time.sleep(0.2)  # the threads of the last contender stop spinning
            waiting = before is not None and busy_ticks() - before > 2
            if not waiting or self.patience <= 0:
                before, own = busy_ticks(), None if before is None else each.ticks()
                value = each.turn(task, tokens)
                others = 0 if before is None else busy_ticks() - before - (each.ticks() - own)
                # Ticks are hundredths of a second: allow one, and a twentieth of the turn.
                loud = others > 1 + 5 * (time.monotonic() - began)
                if not loud or self.patience <= 0:
                    self.turns += 1
                    self.disturbed += loud
                    return value
            self.patience -= time.monotonic() - began


def busy_ticks() -> int | None:
    """Clock ticks that all processors have spent working, idle and waiting for disks left out."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, *interrupts = map(int, stat.read_text().split("\n")[0].split()[1:9])
    return user + nice + system + sum(interrupts)


@dataclass
class Bench:
    """One run: where things are, and what is found."""

    folder: str
    scratch: Path
    threads: int = 2
    clock: str = "wall"
    patience: float = 0.0
    gguf: str | None = None  # the file that the folder was converted from
    missing: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    greedy: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.quiet = Quiet(self.patience)
        self.environment = dict(
            os.environ,
            TRANSFORMERS_VERBOSITY="error",
            HF_HUB_OFFLINE="1",
            HF_HUB_DISABLE_PROGRESS_BARS="1",
        )
        self.environment["MINIKV_BENCHMARK_CLOCK"] = self.clock
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            self.environment[f"{name}_NUM_THREADS"] = str(self.threads)

    def paths(self, names: Sequence[str]) -> dict[str, str]:
        """What each contender loads; those that have nothing to load are noted as missing."""
        paths = {name: self.folder for name in names if not name.startswith(LLAMA_CPP)}
        if HALVED in names:
            paths[HALVED] = str(self.scratch / "bfloat16")
            command = [sys.executable, "-m", "benchmarks.contenders", "bfloat16", self.folder]
            subprocess.run([*command, paths[HALVED]], check=True)
        wanted = [name for name in names if name.startswith(LLAMA_CPP)]
        if wanted and importlib.util.find_spec("llama_cpp") is None:
            self.missing.append("llama.cpp: llama-cpp-python is not installed")
            return paths
        for name in wanted:
            kind, source = "float32", self.folder
            if name == SIXTEEN_BITS:
                kind = "bfloat16"
            if name == STORED:
                kind, source = "stored", Path(self.folder).name
            path = str(self.scratch / f"{kind}.gguf")
            if name == STORED and self.gguf:
                path = self.gguf
            elif not Path(path).exists():
                note(f"making the GGUF file of {name}")
                command = [sys.executable, "-m", "benchmarks.gguf_files", kind, source, path]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    self.missing.append(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                    continue
            paths[name] = path
        return {name: paths[name] for name in names if name in paths}

    def seconds(
        self,
        paths: Mapping[str, str],
        plan: Mapping[str, Sequence[str]],
        rounds: int,
        once: Collection[str] = (),
    ) -> dict[str, dict[str, list[float]]]:
        """Let all contenders take turns; seconds by contender and task, one a round.

        `plan` has each contender's tasks. Those in `once`, which take long, have a single turn, in
        the first round that counts.
        """
        workers: list[Worker] = []
        try:
            for name, path in paths.items():
                note(f"loading {name}")
                candidate = Worker(name, path, self.environment)
                if "missing" in candidate.ready:
                    self.missing.append(candidate.ready["missing"])
                    candidate.close()
                    continue
                workers.append(candidate)
                self.versions |= candidate.ready["versions"]
                if name != "bare":
                    self.greedy[name] = candidate.ready["greedy"]
            found: dict[str, dict[str, list[float]]] = {
                w.name: {task: [] for task in plan[w.name]} for w in workers
            }
            took: dict[tuple[str, str], float] = {}
            tasks = dict.fromkeys(task for each in workers for task in plan[each.name])
            ahead = [
                (number, task, each)
                for number in range(rounds + 1)
                for task in tasks
                for each in workers
                if task in plan[each.name] and (task not in once or number == 1)
            ]
            begun = -1
            while ahead:
                number, task, each = ahead[0]
                left = time_left(took, [(each.name, task) for _, task, each in ahead])
                warm = "" if number else " (warm-up)"
                note(f"round {number} of {rounds}{warm}: {task}, {left}", lasting=number > begun)
                begun = number
                began = time.monotonic()
                value = self.quiet.turn(each, task, turn_tokens(task))
                took[each.name, task] = time.monotonic() - began
                if number:
                    found[each.name][task].append(value)
                del ahead[0]
        finally:
            for each in workers:
                each.close()
        return found

    def fresh(
        self, paths: Mapping[str, str], lengths: Sequence[int], rounds: int
    ) -> dict[str, dict[str, Any]]:
        """Seconds and peak bytes of fresh processes, by contender and ``"imports"`` or length.

        Bytes are those of the whole process; subtract those of ``"imports"``.
        """
        out: dict[str, dict[str, Any]] = {name: {} for name in paths}
        for number in range(rounds):
            for length in (0, *lengths):
                for name, path in paths.items():
                    key = str(length) if length else "imports"
                    note(f"fresh process {number + 1} of {rounds}: {name}, {key}")
                    for measure, value in self.start(name, path, length).items():
                        out[name].setdefault(key, {}).setdefault(measure, []).append(value)
        return out

    def start(self, name: str, path: str, length: int) -> dict[str, float]:
        """One fresh process. Where it only imports, its first token is the end of that."""
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", "fresh", name, path, str(length)],
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        found = {}
        line = process.stdout.readline()  # type: ignore[union-attr]  # a pipe
        if line.startswith("first token"):
            found["first token"] = time.perf_counter() - begin
            line = process.stdout.readline()  # type: ignore[union-attr]  # a pipe
        if process.wait():
            raise SystemExit(f"benchmarks: the process of {name} ended, see above")
        return found | json.loads(line)

    def starts(self, count: int) -> dict[str, list[float]]:
        """Seconds of ``import minikv`` within, and of ``minikv --help`` as, a fresh process."""
        code = "import time; t = time.perf_counter(); import minikv; print(time.perf_counter() - t)"
        out: dict[str, list[float]] = {name: [] for name in STARTS}
        for _ in range(count + 1):
            done = subprocess.run(
                [sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE
            )
            out["import minikv"].append(float(done.stdout))
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "minikv", "--help"], check=True, stdout=subprocess.DEVNULL
            )
            out["minikv --help"].append(time.perf_counter() - begin)
        return {name: seconds[1:] for name, seconds in out.items()}  # the first reads the disk

    def machine(self, **more: str) -> dict[str, str]:
        """What the timings were taken on."""
        name = platform.processor() or platform.machine()
        info = Path("/proc/cpuinfo")
        if info.exists():
            models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
            name = models[0].split(":")[1].strip() if models else name
        usable = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
        disturbed = f"{self.quiet.disturbed} of {self.quiet.turns}"
        return {
            "processor": f"{name}, {usable} usable cores",
            "threads": str(self.threads),
            "system": f"{platform.system()} {platform.release()}, Python "
            f"{platform.python_version()}",
            **self.versions,
            **more,
            "clock": self.clock,
            "turns disturbed by other programs": disturbed,
        }


def compare(bench: Bench, sizes: Sizes) -> dict[str, Any]:
    """Everything that ``--peers`` measures."""
    tasks = [f"decode {n}" for n in sizes.decode] + [f"prefill {n}" for n in sizes.prefill]
    paths = bench.paths(CONTENDERS)
    seconds = bench.seconds(paths, dict.fromkeys(paths, tasks), sizes.rounds)
    loaded = {name: paths[name] for name in seconds if name != "bare"}
    result: dict[str, Any] = {"seconds": seconds, "greedy": bench.greedy}
    result["fresh"] = bench.fresh(loaded, sizes.memory, sizes.fresh)
    result["starts"] = bench.starts(sizes.starts)
    rounds = f"{sizes.rounds} after a warm-up, {TURN_TOKENS} tokens a turn"
    result["machine"] = bench.machine(rounds=rounds)
    result["missing"] = bench.missing
    result["ratios"] = ratios(result)
    return result


Row = dict[str, Any]


def ratios(result: Mapping[str, Any]) -> list[Row]:
    """One ratio, its target and its verdict a row."""
    return [
        *speed_ratios(result["seconds"]),
        load_ratio(result["fresh"]),
        *memory_ratios(result["fresh"]),
        *start_ratios(result["starts"]),
    ]


def row(
    measured: tuple[str, str, str], against: str, found: Sequence[float], target: Target
) -> Row:
    """A ratio with its spread; `measured` is what, of which contender, and its value in words."""
    measure, contender, value = measured
    middle = statistics.median(found)
    verdict = ""
    if target is not None:
        verdict = "met" if middle <= target else "MISSED"
    return {
        "measure": measure,
        "contender": contender,
        "value": value,
        "against": against,
        "ratio": middle,
        "low": min(found),
        "high": max(found),
        "target": target,
        "verdict": verdict,
    }


def speed_ratios(seconds: Mapping[str, Mapping[str, list[float]]]) -> Iterator[Row]:
    """Time beside another contender's, round by round."""
    for kind, name, other, targets in RATIOS:
        for task, ours in seconds.get(name, {}).items():
            if not task.startswith(kind) or other not in seconds:
                continue
            theirs = seconds[other][task]
            measure = task.replace(" ", " at " if kind == "decode" else " of ")
            yield row(
                (measure, name, milliseconds(ours)),
                f"{other} {milliseconds(theirs)}",
                [x / y for x, y in zip(ours, theirs, strict=True)],
                targets.get(int(task.split()[1])),
            )


def load_ratio(fresh: Mapping[str, Any]) -> Row:
    """Load time of float32 on NumPy against its limit."""
    load = next(of["load"] for key, of in fresh["float32/numpy"].items() if key != "imports")
    return row(
        ("load", "float32/numpy", f"{statistics.median(load):.2f} s"),
        f"{LOAD_SECONDS:.0f} s",
        [seconds / LOAD_SECONDS for seconds in load],
        1.0,
    )


def memory_ratios(fresh: Mapping[str, Any]) -> Iterator[Row]:
    """Peak memory beside what float32 weights and cache need, and beside transformers."""
    lengths = [key for key in fresh["float32/numpy"] if key != "imports"]
    for name in MINIKV:
        if name not in fresh:
            continue
        for length in lengths:
            yield from peak_ratios(fresh, name, length, shortest=length == lengths[0])


def peak_ratios(fresh: Mapping[str, Any], name: str, length: str, shortest: bool) -> Iterator[Row]:
    """One contender's peak at one length."""
    needs = fresh["float32/numpy"][length]
    weights = needs["weights"][0]
    needed = weights + needs["cache"][0]
    used = peaks(fresh, name, length)
    measured = (f"peak, {length} tokens", name, megabytes(used))
    yield row(
        measured,
        f"float32 weights and cache {megabytes([needed])}",
        [peak / needed for peak in used],
        PEAK if name == "float32/numpy" else None,
    )
    if name == "exact/numba" and shortest:
        alone = f"float32 weights {megabytes([weights])}"
        yield row(measured, alone, [peak / weights for peak in used], PEAK_NUMBA)
        if "running" in needs:  # Linux
            running = peaks(fresh, name, length, "running")
            aside = (f"peak, {length} tokens, load aside", name, megabytes(running))
            yield row(aside, alone, [peak / weights for peak in running], None)
    if "transformers" in fresh:
        theirs = peaks(fresh, "transformers", length)
        found = [x / y for x, y in zip(used, theirs, strict=True)]
        yield row(measured, f"transformers {megabytes(theirs)}", found, None)


def start_ratios(starts: Mapping[str, list[float]]) -> Iterator[Row]:
    """Start-up times against their limits."""
    for name, limit in STARTS.items():
        seconds = starts[name]
        yield row(
            (name, "", f"{statistics.median(seconds):.3f} s"),
            f"{limit} s",
            [x / limit for x in seconds],
            1.0,
        )


def peaks(fresh: Mapping[str, Any], name: str, length: str, measure: str = "peak") -> list[float]:
    """Bytes of loading, a prompt of so many tokens and 16 more, less those of importing."""
    imports = statistics.median(fresh[name]["imports"]["peak"])
    return [used - imports for used in fresh[name][length][measure]]


def speeds(result: Mapping[str, Any]) -> list[list[str]]:
    """The contenders side by side: tokens a second, seconds to load and to start, megabytes."""
    seconds, fresh, greedy = result["seconds"], result["fresh"], result["greedy"]
    tasks = list(next(iter(seconds.values())))
    lengths = [key for key in fresh["float32/numpy"] if key != "imports"]
    head = [t.replace("decode", "decode at").replace("prefill", "prefill of") for t in tasks]
    head += ["load, s", *(f"first token after {n}, s" for n in lengths)]
    head += [f"peak at {n}, MB" for n in lengths]
    table = [["contender", *head, "greedy tokens equal"]]
    expected = greedy.get("exact/numpy", [])
    for name, took in seconds.items():
        line = [name, *(f"{rate(task, took[task]):.1f}" for task in tasks)]
        if name in fresh:
            by_length = [fresh[name][n] for n in lengths]
            line.append(f"{statistics.median(by_length[0]['load']):.2f}")
            line += [f"{statistics.median(found['first token']):.2f}" for found in by_length]
            line += [f"{statistics.median(peaks(fresh, name, n)) / 1e6:.0f}" for n in lengths]
            same = next(
                (i for i, (a, b) in enumerate(zip(greedy[name], expected, strict=False)) if a != b),
                len(expected),
            )
            line.append(f"{same} of {len(expected)}")
        table.append(line + [""] * (len(table[0]) - len(line)))
    return table


def rate(task: str, seconds: Sequence[float]) -> float:
    """Tokens a second."""
    kind, size = task.split()
    return (1 if kind == "decode" else int(size)) / statistics.median(seconds)


def milliseconds(values: Sequence[float]) -> str:
    middle = 1e3 * statistics.median(values)
    return f"{middle:.1f} ms" if middle < 100 else f"{middle:.0f} ms"


def megabytes(counts: Sequence[float]) -> str:
    return f"{statistics.median(counts) / 1e6:.0f} MB"


def turn_tokens(task: str) -> int:
    """Tokens that a turn of decoding counts; one where each computes the whole text again."""
    if "residual" in task:
        return 1
    return TURN_TOKENS


def time_left(took: Mapping[tuple[str, str], float], ahead: Sequence[tuple[str, str]]) -> str:
    """How long turns will take, each a contender and a task, if they take what they took before.

    Examples
    --------
    >>> time_left({("bare", "decode 16"): 50.0}, [("bare", "decode 16")] * 3)
    'about 3 min left'
    >>> time_left({}, [("bare", "decode 16")])
    'how long is not known yet'
    """
    seconds = sum(took.get(turn, 0.0) for turn in ahead)
    if not all(turn in took for turn in ahead):
        if seconds < 60:
            return "how long is not known yet"
        return f"more than {math.floor(seconds / 60)} min left"
    return f"about {math.ceil(seconds / 60)} min left"


def note(text: str, lasting: bool = False) -> None:
    """Progress, on a terminal; what is `lasting` has a line elsewhere too, as in a log."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif lasting:
        print(text, file=sys.stderr, flush=True)

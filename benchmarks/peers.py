"""Speed and memory of minikv beside transformers on torch and beside bare BLAS, in one run.

Every contender lives in a process of its own, so that the spinning threads of one BLAS do not slow
the next, and they take turns: A B C, A B C, ... after one round that is not counted. A ratio is
taken within each round; printed are the median over the rounds and the smallest and largest. This
process stays small and imports nothing but the standard library, because a child's ``ru_maxrss``
starts at its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SHORT, LONG = 16, 512  # tokens of context for decoding; LONG is also the prefill
TASKS = (f"decode {SHORT}", f"decode {LONG}", f"prefill {LONG}")
OPTIONAL = {"exact": "the exact arithmetic", "transformers": "torch and transformers"}
# (label, task, contender, compared with, target)
RATIOS = [
    (f"decode at {SHORT}", TASKS[0], "float32", "transformers", 0.90),
    (f"decode at {LONG}", TASKS[1], "float32", "transformers", 0.90),
    (f"decode at {SHORT}", TASKS[0], "float32", "bare", 1.25),
    (f"decode at {LONG}", TASKS[1], "float32", "bare", 1.25),
    (f"prefill of {LONG}", TASKS[2], "float32", "transformers", 1.60),
    (f"prefill of {LONG}", TASKS[2], "float32", "bare", None),
    (f"decode at {SHORT}", TASKS[0], "exact", "float32", 2.30),
    (f"decode at {LONG}", TASKS[1], "exact", "float32", 2.30),
    (f"prefill of {LONG}", TASKS[2], "exact", "float32", 2.50),
]
LOAD_SECONDS, PEAK_RATIO = 3.0, 1.3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS[os.environ.get("MINIKV_BENCHMARK_CLOCK", "wall")]


# ---- contenders: each runs in a worker process; a turn returns seconds per token or per prefill


def prompt(length: int, vocab: int) -> list[int]:
    """Token ids that are the same for every contender."""
    return [(7919 * i + 13) % vocab for i in range(length)]


def timed(step: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one call that is not counted."""
    step()
    seconds = []
    for _ in range(repeats):
        start = clock()
        step()
        seconds.append(clock() - start)
    return statistics.median(seconds)


class MiniKV:
    """minikv's decoder under one arithmetic, with its full cache."""

    def __init__(self, folder: str, arithmetic: str) -> None:
        import minikv

        start = time.perf_counter()
        self.model = minikv.load(folder, arithmetic=arithmetic)
        self.load_seconds = time.perf_counter() - start
        self.vocab = self.model.config.vocab_size
        self.texts: dict[int, list] = {}

    def prefill(self, length: int) -> tuple[Any, int]:
        cache = self.model.new_cache()
        logits = self.model.forward([prompt(length, self.vocab)], [cache])
        return cache, int(logits[0].argmax())

    def decode(self, context: int, tokens: int) -> float:
        if context not in self.texts:  # the text goes on growing from turn to turn
            self.texts[context] = list(self.prefill(context))
        text = self.texts[context]

        def step() -> None:
            text[1] = int(self.model.forward([[text[1]]], [text[0]])[0].argmax())

        return timed(step, tokens)


class Transformers:
    """``LlamaForCausalLM`` in float32 with its `DynamicCache`, called without ``generate``."""

    def __init__(self, folder: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.torch, self.new_cache = torch, transformers.DynamicCache
        start = time.perf_counter()
        self.model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.load_seconds = time.perf_counter() - start
        self.model.eval()
        self.vocab = self.model.config.vocab_size
        self.texts: dict[int, list] = {}

    def forward(self, ids: list[int], cache: Any) -> int:
        with self.torch.inference_mode():
            out = self.model(
                input_ids=self.torch.tensor([ids]), past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            return int(out.logits[0, -1].argmax())

    def prefill(self, length: int) -> tuple[Any, int]:
        cache = self.new_cache(config=self.model.config)
        return cache, self.forward(prompt(length, self.vocab), cache)

    def decode(self, context: int, tokens: int) -> float:
        if context not in self.texts:
            self.texts[context] = list(self.prefill(context))
        text = self.texts[context]

        def step() -> None:
            text[1] = self.forward([text[1]], text[0])

        return timed(step, tokens)


class Bare:
    """The weights' products and nothing else: one row, or all rows, by every matrix."""

    def __init__(self, folder: str) -> None:
        import numpy as np

        from minikv import ModelConfig
        from minikv.weights import load_tensors

        start = time.perf_counter()
        config = ModelConfig.from_file(Path(folder) / "config.json")
        tensors = load_tensors(Path(folder), config)
        self.load_seconds = time.perf_counter() - start
        embedding = tensors["model.embed_tokens.weight"]
        self.head = tensors.get("lm_head.weight", embedding)
        self.blocks = [w for n, w in tensors.items() if n.startswith("model.l") and w.ndim == 2]
        widths = {w.shape[1] for w in [self.head, *self.blocks]}
        self.rows = {
            (t, k): np.linspace(-1, 1, t * k, dtype=np.float32).reshape(t, k)
            for t in (1, LONG)
            for k in widths
        }

    def products(self, rows: int) -> None:
        for w in self.blocks:
            self.rows[rows, w.shape[1]] @ w.T
        self.rows[1, self.head.shape[1]] @ self.head.T  # logits of the last row alone

    def prefill(self, length: int) -> None:
        self.products(length)

    def decode(self, context: int, tokens: int) -> float:
        return timed(lambda: self.products(1), tokens)


def make(contender: str, folder: str) -> Any:
    """Load a contender; ImportError or NotImplementedError where it is not to be had."""
    if contender == "transformers":
        return Transformers(folder)
    if contender == "bare":
        return Bare(folder)
    return MiniKV(folder, contender)


def turn(contender: Any, task: str, tokens: int) -> float:
    """One measurement."""
    kind, size = task.split()
    if kind == "decode":
        return contender.decode(int(size), tokens)
    start = clock()
    contender.prefill(int(size))
    return clock() - start


def worker(name: str, folder: str) -> None:
    """Answer one line of JSON for each line of the controller."""
    try:
        contender = make(name, folder)
    except (ImportError, NotImplementedError) as error:
        print(json.dumps({"missing": f"{OPTIONAL.get(name, name)}: {error}"}), flush=True)
        return
    print(json.dumps({"load": contender.load_seconds, "versions": versions(name)}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(turn(contender, request["task"], request["tokens"])), flush=True)


def versions(name: str) -> dict[str, str]:
    """Libraries that this worker computes with."""
    if name == "transformers":
        import torch
        import transformers

        capability = torch.backends.cpu.get_cpu_capability()
        return {"torch": f"{torch.__version__} ({capability}, {torch.get_num_threads()} threads)",
                "transformers": transformers.__version__}  # fmt: skip
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {"numpy": np.__version__, "BLAS": f"{blas['name']} {blas['version']}"}
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return found
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    for pool in pools[:1]:
        found["BLAS"] += f" ({pool.get('architecture')}, {pool['num_threads']} threads)"
    return found


def memory(name: str, folder: str, length: int) -> None:
    """Load, prefill `length` tokens and decode 16, or only import; print the peak in bytes."""
    out: dict[str, Any] = {}
    if name.startswith("import "):
        module = name.removeprefix("import ")
        __import__("minikv" if module == "float32" else module)
        if module == "transformers":  # its modules load on first use
            __import__("transformers.models.llama.modeling_llama")
    else:
        contender = make(name, folder)
        contender.decode(length, 15)
        if name == "float32":
            config = contender.model.config
            out["weights"] = config.num_parameters * 4
            out["cache"] = contender.texts[length][0].nbytes
    unit = 1 if sys.platform == "darwin" else 1024
    out["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps(out))


# ---- the controller


class Worker:
    """A contender's process."""

    def __init__(self, name: str, folder: str, environment: dict[str, str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", "--worker", name, "--model", folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.ready = self.read()

    def read(self) -> Any:
        line = self.process.stdout.readline()  # type: ignore[union-attr]  # a pipe
        if not line:
            raise SystemExit(f"benchmarks.peers: the process of {self.name} ended, see above")
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


def measure(
    folder: str, environment: dict[str, str], rounds: int, tokens: int, quiet: Quiet
) -> dict[str, Any]:
    """Let all contenders take turns; seconds by contender and task, one a round."""
    workers: list[Worker] = []
    missing: list[str] = []
    loads: dict[str, float] = {}
    found: dict[str, str] = {}
    for name in ("float32", "transformers", "bare", "exact"):
        candidate = Worker(name, folder, environment)
        if "missing" in candidate.ready:
            missing.append(candidate.ready["missing"])
            candidate.close()
            continue
        workers.append(candidate)
        loads[name] = candidate.ready["load"]
        found |= candidate.ready["versions"]
    seconds: dict[str, dict[str, list[float]]] = {
        w.name: {task: [] for task in TASKS} for w in workers
    }
    try:
        for number in range(rounds + 1):
            note(f"round {number} of {rounds}" + ("" if number else " (warm-up)"))
            for task in TASKS:
                for each in workers:
                    value = quiet.turn(each, task, tokens)
                    if number:
                        seconds[each.name][task].append(value)
    finally:
        for each in workers:
            each.close()
    return {"seconds": seconds, "missing": missing, "load": loads, "versions": found}


def probe(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Run `memory` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.peers", "--memory", *arguments]
    return json.loads(subprocess.run(command, env=environment, check=True, text=True,
                                     stdout=subprocess.PIPE).stdout)  # fmt: skip


def peaks(folder: str, environment: dict[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Bytes at the peak above those of a process that only imports."""
    out: dict[str, Any] = {}
    for name in names:
        base = probe(environment, f"import {name}", "--model", folder)["peak"]
        for length in (SHORT, LONG):
            note(f"memory of {name} at {length} tokens")
            got = probe(environment, name, "--model", folder, "--length", str(length))
            out[f"{name} {length}"] = {**got, "peak": got["peak"] - base, "imports": base}
    return out


def note(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The table: one ratio, its target and its verdict a row."""
    table, seconds, memory_used = [], result["seconds"], result["memory"]

    def row(label: str, value: str, of: str, ratios: list[float], target: float | None) -> None:
        middle = statistics.median(ratios)
        verdict = "" if target is None else "met" if middle <= target else "MISSED"
        table.append({"measure": label, "value": value, "against": of, "ratio": middle,
                      "low": min(ratios), "high": max(ratios), "target": target,
                      "verdict": verdict})  # fmt: skip

    for label, task, name, other, target in RATIOS:
        if name in seconds and other in seconds:
            a, b = seconds[name][task], seconds[other][task]
            row(f"{label}, {name}", milliseconds(a), f"{other} {milliseconds(b)}",
                [x / y for x, y in zip(a, b, strict=True)], target)  # fmt: skip
    load = result["load"]["float32"]
    row("load, float32", f"{load:.2f} s", f"{LOAD_SECONDS:.0f} s", [load / LOAD_SECONDS], 1.0)
    for length in (SHORT, LONG):
        used, other = memory_used[f"float32 {length}"], memory_used.get(f"transformers {length}")
        label, value = f"peak, {length} tokens, float32", megabytes(used["peak"])
        needed = used["weights"] + used["cache"]
        row(label, value, "weights and cache " + megabytes(needed), [used["peak"] / needed],
            PEAK_RATIO)  # fmt: skip
        if other:
            row(label, value, "transformers " + megabytes(other["peak"]),
                [used["peak"] / other["peak"]], None)  # fmt: skip
    return table


def milliseconds(values: list[float]) -> str:
    middle = 1e3 * statistics.median(values)
    return f"{middle:.1f} ms" if middle < 100 else f"{middle:.0f} ms"


def megabytes(count: float) -> str:
    return f"{count / 1e6:.0f} MB"


def render(result: dict[str, Any]) -> str:
    """The machine and the table as Markdown."""
    head = [f"{key}: {value}" for key, value in result["machine"].items()]
    head += [f"not measured: {reason}" for reason in result["missing"]]
    table = [["measure", "minikv", "against", "ratio", "lowest to highest", "target", "verdict"]]
    for r in result["table"]:
        target = "" if r["target"] is None else f"<= {r['target']:.2f}"
        spread = "" if r["low"] == r["high"] else f"{r['low']:.2f} to {r['high']:.2f}"
        table.append([r["measure"], r["value"], r["against"], f"{r['ratio']:.2f}", spread,
                      target, r["verdict"]])  # fmt: skip
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    table.insert(1, ["-" * width for width in widths])
    body = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
            for line in table]  # fmt: skip
    return "\n".join([*head, "", *body])


def machine(threads: int, found: dict[str, str]) -> dict[str, str]:
    """What the timings were taken on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": f"{name}, {usable} usable cores", "threads": str(threads),
            "system": f"{platform.system()} {platform.release()}, Python "
                      f"{platform.python_version()}", **found}  # fmt: skip


def random_folder(folder: str) -> None:
    """SmolLM-135M's shape with random weights, in a process that then ends."""
    import minikv
    from minikv.weights import save_folder

    config = minikv.ModelConfig(49152, 576, 1536, 30, 9, 3, 64, 2048)
    save_folder(Path(folder), config, minikv.random_tensors(config, seed=0))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Time minikv beside transformers and bare BLAS; print ratios and targets.",
        epilog="example: python -m benchmarks.peers --quick --random",
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="fetched name or folder")
    parser.add_argument("--random", action="store_true",
                        help="random weights of SmolLM-135M's shape, nothing fetched")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 7")
    parser.add_argument("--rounds", type=int, help="rounds that count")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default 2)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="cpu: processor time, for one thread on a busy machine")  # fmt: skip
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS",
                        help="wait so long in all for undisturbed turns")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write every figure to FILE")
    for hidden in ("--worker", "--memory", "--length", "--make-random"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.make_random:
        random_folder(args.make_random)
    elif args.memory:
        memory(args.memory, args.model, int(args.length or SHORT))
    elif args.worker:
        worker(args.worker, args.model)
    else:
        compare(args)
    return 0


def compare(args: argparse.Namespace) -> None:
    rounds, quiet = args.rounds or (3 if args.quick else 7), Quiet(args.patience)
    environment = dict(os.environ, TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1",
                       HF_HUB_DISABLE_PROGRESS_BARS="1")  # fmt: skip
    environment["MINIKV_BENCHMARK_CLOCK"] = args.clock
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model
        if args.random:
            folder = str(Path(scratch) / "random")
            note("making random weights")
            command = [sys.executable, "-m", "benchmarks.peers", "--make-random", folder]
            subprocess.run(command, check=True)
        else:
            folder = resolved(folder)
        names = ["float32"]
        result = measure(folder, environment, rounds, 8, quiet)
        if "transformers" in result["load"]:
            names.append("transformers")
        result["memory"] = peaks(folder, environment, names)
    note("")
    result["machine"] = machine(args.threads, result.pop("versions"))
    result["machine"]["weights"] = "random" if args.random else args.model
    result["machine"]["clock"] = args.clock
    result["machine"]["turns disturbed by other programs"] = f"{quiet.disturbed} of {quiet.turns}"
    result["machine"]["rounds"] = f"{rounds} after a warm-up, 8 tokens a turn"
    result["table"] = rows(result)
    print(render(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def resolved(name: str) -> str:
    """The folder of a model, looked up in a process of its own to keep this one small."""
    code = "import sys; from minikv.weights import resolve; print(resolve(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, name], text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"benchmarks.peers: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

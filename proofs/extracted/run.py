"""Run the decoder that was written and verified in Rocq beside the Python one; compare all bits.

::

    python proofs/extracted/run.py                                   # the tiny model of the tests
    python proofs/extracted/run.py --random 20                       # random ones, all families
    python proofs/extracted/run.py --model smollm2-135m-instruct --tokens 3 1 4 1 5

Each model runs in one pass, through the full cache in chunks, so on another machine (which adds
backwards, in blocks, with fused multiply-adds), through both of KV-Direct's caches, and through all
caches with a step back, one of which forgets rows. Exit code 1 if a bit differs; the first
activation and layer that differ are then named. 2 if it cannot run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoder_calm import calm
from decoder_cases import Case, folder_case, random_case
from decoder_dump import dump

from minikv import MinikvError, kv_from_residual
from minikv.arithmetic import elementary
from minikv.caches import Scheduled
from minikv.caches.base import Cache
from minikv.errors import CacheError
from minikv.fingerprint import hash_logits

HERE = Path(__file__).resolve().parent
ROCQ = HERE.parent / "rocq"
FIXTURE = HERE.parents[1] / "tests" / "fixtures" / "tiny"
PROGRAMS = {"coqc": "coq", "ocamlopt": "ocaml"}  # and the Debian package of each
THEORIES = (
    ROCQ / "Lists.v",
    ROCQ / "Markov.v",
    ROCQ / "Truncate.v",
    ROCQ / "Decoder.v",
    ROCQ / "Caches.v",
    ROCQ / "Calm.v",
    HERE / "Extracted.v",
)
SOURCES = ("float64.ml", "decoder.mli", "decoder.ml", "main.ml")
FORGET = 2  # rows that a Residual cache forgets together
SCHEDULE = (1, 2, 3)  # of a Scheduled cache: what is kept follows step + 2 layer + 3 position
KEPT = ("kv", "residual", "both")
FUNCTIONS = {
    "narrow": lambda x: x.astype(np.float32),
    "exp": elementary.exp,
    "sin": elementary.sin,
    "cos": elementary.cos,
}
ACTIVATIONS = (
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_rot_q",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)


class CannotRun(Exception):
    """One line that says why."""


@dataclass(frozen=True)
class Outcome:
    """What comparing one way of running one model found."""

    mode: str
    compared: int
    differ: int
    seconds: float  # of CPU, in the extracted decoder
    fingerprint: str  # SHA-256 of its logits
    first: str = ""  # name and place of the first number that differs


def build(into: Path, decoder: Path | None = None) -> Path:
    """Extract the decoder, compile it, and return the program.

    Parameters
    ----------
    into : Path
        An empty folder.
    decoder : Path, optional
        A folder with a ``decoder.ml`` and ``decoder.mli`` to compile instead of extracting one.

    Raises
    ------
    CannotRun
        If a compiler is missing or refuses.
    """
    for program, package in PROGRAMS.items():
        if program == "coqc" and decoder is not None:
            continue
        if shutil.which(program) is None:
            raise CannotRun(f"no {program} on the PATH; install it (Debian: apt install {package})")
    if decoder is None:
        for path in THEORIES:
            shutil.copy(path, into)
        compile_theories(into, [path.name for path in THEORIES])
    else:
        for name in ("decoder.ml", "decoder.mli"):
            shutil.copy(decoder / name, into)
    for name in ("float64.ml", "main.ml"):
        shutil.copy(HERE / name, into)
    _call(["ocamlopt", "-w", "-a", "-inline", "200", *SOURCES, "-o", "extracted"], into)
    return into / "extracted"


def program() -> Path:
    """The compiled decoder, from a cache that knows its sources.

    Raises
    ------
    CannotRun
        See `build`.
    """
    digest = hashlib.sha256()
    for path in (*THEORIES, HERE / "float64.ml", HERE / "main.ml"):
        digest.update(path.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minikv"
    built = home / f"extracted-{digest.hexdigest()[:16]}"
    if not built.exists():
        with tempfile.TemporaryDirectory(prefix="extracted-") as scratch:
            made = build(Path(scratch))
            home.mkdir(parents=True, exist_ok=True)
            partial = built.with_suffix(f".{os.getpid()}")
            shutil.copy(made, partial)
            partial.replace(built)
    return built


def compile_theories(folder: Path, names: Sequence[str]) -> None:
    """Compile theories that are in a folder, which leaves ``decoder.ml`` there."""
    for name in names:
        _call(["coqc", "-q", "-Q", ".", "Minikv", name], folder)


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr + done.stdout).strip().splitlines()
        raise CannotRun(f"{' '.join(command[:1])} failed: {' '.join(told[-3:])}")


def cut(tokens: int) -> str:
    """Chunks of 1, 2, 1 and the rest of a text, as far as it goes; see ``main.ml`` for the form."""
    sizes = []
    for size in (1, 2, 1, tokens):
        if (left := min(size, tokens - sum(sizes))) > 0:
            sizes.append(left)
    return ",".join(map(str, sizes))


def back(tokens: int, by: int) -> str:
    """Two thirds of a text in two chunks, `by` tokens back, and the last third."""
    third = tokens // 3
    if not third:
        return f"{tokens},<{tokens}"
    return f"{third},{third},<{max(2 * third - by, 0)},{tokens - 2 * third}"


def modes(case: Case) -> list[str]:
    """The ways in which a model is run; `expected` knows what each must give."""
    layers = case.config.num_hidden_layers
    tokens = len(case.ids)
    steps = cut(tokens)
    budget = tokens // 3
    alternating = ("10" * layers)[:layers]
    schedule = ":".join(map(str, SCHEDULE))
    far = back(tokens, tokens // 2)
    return [
        "forward",
        f"chunks={steps}",
        f"other={steps}",
        f"residual={budget}:0:tokens:{'1' + '0' * (layers - 1)}:{steps}",
        f"residual={budget}:0:rows:{alternating}:{steps}",
        f"scheduled={schedule}:{steps}",
        f"chunks={far}",
        f"residual={budget}:0:rows:{alternating}:{far}",
        f"residual=2:{FORGET}:rows:{'1' * layers}:{back(tokens, 1)}",
        f"scheduled={schedule}:{far}",
        "calm",
    ]


def expected(case: Case, mode: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of what Python computes, in the order in which the program writes them."""
    kind, _, what = mode.partition("=")
    if kind == "trace":
        yield from _activations(case)
        return
    if kind in FUNCTIONS:
        with np.errstate(over="ignore"):
            yield kind, FUNCTIONS[kind](np.fromfile(what, dtype="<f8"))
        return
    if kind == "calm":
        yield kind, np.array([float(calm(case))])
        return
    if kind == "forward":
        yield "logits", case.model.logits(case.ids)
        return
    steps = what.split(":")[-1]
    yield "logits", python_logits(case, cache_of(case, kind, what), steps)
    if kind in ("chunks", "other"):
        yield from _keys_values(case, steps)


def cache_of(case: Case, kind: str, what: str) -> Cache:
    """The cache that a mode names."""
    model = case.model
    if kind == "residual":
        budget, chunk, source, kept, _ = what.split(":")
        layers = [layer for layer, mark in enumerate(kept) if mark == "1"]
        checkpoints = "tokens" if source == "tokens" else layers
        forgetting = {"forget": True, "chunk": int(chunk)} if int(chunk) else {}
        return model.new_cache(
            "residual", budget=int(budget), checkpoints=checkpoints, **forgetting
        )
    if kind == "scheduled":
        a, b, c = map(int, what.split(":")[:3])
        return Scheduled(
            model.weights,
            lambda step, layer, position: KEPT[(a * step + b * layer + c * position) % 3],
        )
    return model.new_cache("full")


def python_logits(case: Case, cache: Cache, steps: str) -> np.ndarray:
    """Python's logits of what a cache remembers; infinity if it refuses to go back."""
    logits = np.empty((0, case.config.vocab_size), dtype=np.float32)
    taken = 0
    for word in steps.split(","):
        if word.startswith("<"):
            try:
                cache.truncate(int(word[1:]))
            except CacheError:
                return np.array([[np.inf]])
            logits = logits[: int(word[1:])]
        else:
            part = case.ids[taken : taken + int(word)]
            taken += len(part)
            new = case.model.forward([part], [cache], logits="all")
            logits = np.concatenate([logits, new])
    return logits


def remembered(ids: Sequence[int], steps: str) -> list[int]:
    """The text that is left after chunks and steps back."""
    text: list[int] = []
    taken = 0
    for word in steps.split(","):
        if word.startswith("<"):
            text = text[: int(word[1:])]
        else:
            text += ids[taken : taken + int(word)]
            taken += int(word)
    return text


def _keys_values(case: Case, steps: str) -> Iterator[tuple[str, np.ndarray]]:
    _, seen = case.model.run_with_cache(remembered(case.ids, steps))
    for layer in case.model.layers:
        yield _kv(layer, seen)


def _kv(layer, seen: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    residuals = seen[f"blocks.{layer.index}.hook_resid_pre"]
    keys, values = kv_from_residual(residuals, np.arange(len(residuals)), layer)
    return f"blocks.{layer.index}.K/V", np.stack([keys, values], axis=2)


def _activations(case: Case) -> Iterator[tuple[str, np.ndarray]]:
    _, seen = case.model.run_with_cache(case.ids)
    for layer in case.model.layers:
        yield _kv(layer, seen)
        for name in ACTIVATIONS:
            full = f"blocks.{layer.index}.{name}"
            yield full, seen[full]


def run(executable: Path, case: Case, wanted: Sequence[str], dumped: Path) -> list[Outcome]:
    """Run the extracted decoder on a dump of a case; compare each mode with Python."""
    with tempfile.TemporaryDirectory(prefix="extracted-") as scratch:
        out = Path(scratch) / "out"
        command = [executable, dumped, out, *wanted]
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_deepen)
        if done.returncode:
            raise CannotRun(done.stderr.strip() or f"the extracted decoder: {done.returncode}")
        seconds = [float(line.split()[-1]) for line in done.stdout.splitlines()]
        numbers = np.fromfile(out, dtype="<f8")
    outcomes = []
    start = 0
    for mode, taken in zip(wanted, seconds, strict=True):
        outcome, start = _compare(case, mode, numbers, start, taken)
        outcomes.append(outcome)
    if start != numbers.size:
        raise CannotRun(f"the extracted decoder wrote {numbers.size} numbers, expected {start}")
    return outcomes


def _deepen() -> None:
    """Allow as deep a stack as there may be: functions on lists recurse over a vocabulary."""
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (most, most))


def _compare(
    case: Case, mode: str, numbers: np.ndarray, start: int, seconds: float
) -> tuple[Outcome, int]:
    compared = 0
    differ = 0
    first = ""
    fingerprint = ""
    for name, python in expected(case, mode):
        theirs = numbers[start : start + python.size].astype("<f8").reshape(-1)
        ours = np.ascontiguousarray(python).astype("<f8").reshape(-1)
        if theirs.size != ours.size:
            raise CannotRun(f"{mode}: {theirs.size} numbers of {name}, expected {ours.size}")
        start += python.size
        compared += python.size
        unequal = np.flatnonzero(theirs.view("<i8") != ours.view("<i8"))
        differ += unequal.size
        if unequal.size and not first:
            where = int(unequal[0])
            width = max(python.size // len(python), 1)
            first = (
                f"{name}, row {where // width}, number {where % width}: "
                f"{theirs[where].hex()}, Python has {ours[where].hex()}"
            )
        if name == "logits":
            with np.errstate(over="ignore"):
                fingerprint = hash_logits(theirs.astype("<f4"))
    return Outcome(mode, compared, int(differ), seconds, fingerprint, first), start


def check(executable: Path, case: Case, wanted: Sequence[str] | None = None) -> list[Outcome]:
    """Compare a case in all modes; if one differs, trace where the first number does."""
    with tempfile.TemporaryDirectory(prefix="extracted-") as scratch:
        dumped = Path(scratch) / "dump"
        bits = case.model.arithmetic.denominator_bits
        dump(dumped, case.config, case.tensors, case.ids, bits)
        outcomes = run(executable, case, modes(case) if wanted is None else wanted, dumped)
        if any(outcome.differ for outcome in outcomes):
            outcomes += run(executable, case, ["trace"], dumped)
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="NAME", help="a fetched model or a folder")
    what.add_argument("--random", type=int, metavar="N", help="N random models of all families")
    parser.add_argument("--seed", type=int, default=0, help="of the first random model")
    parser.add_argument("--tokens", type=int, nargs="+", metavar="ID", help="the text's token ids")
    parser.add_argument("--forward", action="store_true", help="one pass only, no caches")
    args = parser.parse_args(arguments)
    if args.tokens and args.random:
        parser.error("--tokens goes with one model, not with --random")
    try:
        return _compare_all(args)
    except (CannotRun, MinikvError) as error:
        print(error, file=sys.stderr)
        return 2


def _compare_all(args: argparse.Namespace) -> int:
    executable = program()
    if args.random:
        seeds = range(args.seed, args.seed + args.random)
        cases = (random_case(seed) for seed in seeds)
    else:
        cases = iter([folder_case(args.model or FIXTURE, args.tokens)])
    wrong = 0
    compared = 0
    for case in cases:
        start = time.perf_counter()
        wanted = ["forward", "calm"] if args.forward else None
        outcomes = check(executable, case, wanted)
        seconds = time.perf_counter() - start
        differ = sum(outcome.differ for outcome in outcomes)
        wrong += differ
        compared += sum(outcome.compared for outcome in outcomes)
        _report(case, outcomes, seconds, bool(args.random))
    print(f"{compared:,} numbers compared, {wrong:,} differ in a bit")
    return int(wrong > 0)


def _report(case: Case, outcomes: list[Outcome], seconds: float, brief: bool) -> None:
    differ = sum(outcome.differ for outcome in outcomes)
    compared = sum(outcome.compared for outcome in outcomes)
    verdict = "equal" if not differ else f"{differ:,} differ"
    print(f"{case.name}: {len(case.ids)} tokens, {compared:,} numbers, {verdict}, {seconds:.1f} s")
    if not brief:
        print(f"  Rocq    {outcomes[0].fingerprint}")
        print(f"  Python  {hash_logits(case.model.logits(case.ids))}")
        for outcome in outcomes:
            print(
                f"  {outcome.mode}: {outcome.compared:,} compared, {outcome.differ:,} differ, "
                f"{outcome.seconds:.2f} s of CPU"
            )
    if differ:
        traced = outcomes[-1]
        source = traced if traced.differ else next(found for found in outcomes if found.differ)
        print(f"  first: {source.first}")


if __name__ == "__main__":
    sys.exit(main())

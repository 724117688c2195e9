"""What takes minutes and gigabytes: real weights through the extracted decoder, and its mutants.

::

    python proofs/extracted/decoder_nightly.py            # prints the figures
    python proofs/extracted/decoder_nightly.py --write    # and keeps them in figures.md, mutants.md

It needs both models (``minikv fetch``), 12 GiB of memory and a quarter of an hour. Exit code 1 if a
bit differs, or a mutant is noticed or not against what is said of it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SMOLLM2 = ["--model", "smollm2-135m-instruct", "--tokens", "504", "13487", "6942", "314", "511"]
GEMMA = ["--model", "gemma-3-270m", "--tokens", "2", "818", "5279", "529", "7001"]
RUNS = {
    "SmolLM2-135M-Instruct, one pass": ["--forward", *SMOLLM2],
    "SmolLM2-135M-Instruct, in all ways": SMOLLM2,
    "Gemma 3 270M, one pass": ["--forward", *GEMMA],
}


def measured(arguments: list[str]) -> tuple[str, int]:
    """Run ``run.py``; what it printed, with its time and memory below, and its exit code."""
    command = [sys.executable, str(HERE / "run.py"), *arguments]
    before = datetime.datetime.now()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = (datetime.datetime.now() - before).total_seconds()
    cpu = usage.ru_utime + usage.ru_stime
    memory = usage.ru_maxrss / 2**20
    figures = f"{cpu:.0f} s of CPU, {wall:.0f} s of wall time, {memory:.2f} GiB"
    return f"{printed}{figures}\n", process.returncode


def versions() -> str:
    """Of the compilers."""
    coq = subprocess.check_output(["coqc", "-print-version"], text=True).split()[0]
    ocaml = subprocess.check_output(["ocamlopt", "-version"], text=True).strip()
    return f"Coq {coq} and OCaml {ocaml}"


def main() -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep figures.md and mutants.md")
    parser.add_argument("--figures", action="store_true", help="real weights only, no mutants")
    args = parser.parse_args()
    failed = 0
    parts = [
        "# Real weights through the extracted decoder",
        "Made by `python proofs/extracted/decoder_nightly.py --write` on "
        f"{datetime.date.today()} with {versions()}, on {os.cpu_count()} CPU cores of "
        f"{os.uname().machine} that other work may have shared. Times and memory include Python's "
        "side and reading the weights; memory is the largest resident set of one process.",
    ]
    for heading, arguments in RUNS.items():
        printed, code = measured(arguments)
        failed = max(failed, code)
        print(printed, flush=True)
        command = " ".join(["python proofs/extracted/run.py", *arguments])
        parts.append(f"## {heading}\n\n```console\n$ {command}\n{printed}```")
    if args.write and not failed:
        (HERE / "figures.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if not args.figures:
        command = [sys.executable, str(HERE / "decoder_mutants.py"), *["--write"] * args.write]
        failed = max(failed, subprocess.run(command).returncode)
    return failed


if __name__ == "__main__":
    sys.exit(main())

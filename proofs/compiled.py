"""The golden models by exact.c: each compiler with each set of flags, and other instruction sets.

Debian's cross compilers make static programs, which QEMU runs. `portability.py --compiled` prints
what comes of it; it has put the folders of what is imported here on the path.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import check_vectors
import compilers
import emulated
import make_vectors
import numpy as np
from golden_models import CONFIGS, random_case


@dataclass(frozen=True)
class Program:
    """exact.c, compiled: how, how it is started, and by what; or why it is not there."""

    name: str
    command: tuple[str, ...] = ()
    version: str = ""
    missing: str = ""
    failed: str = ""


CROSS = {  # Debian's compiler and its package, where they have other names than the libraries
    "i386": ("i686-linux-gnu-gcc", "gcc-i686-linux-gnu", "-msse2", "-mfpmath=sse"),
}
CROSS_LEVELS = (("-O0",), ("-O3", "-ffp-contract=fast"))


def programs(folder: Path) -> Iterator[Program]:
    """The program by each compiler with each set of flags, controls left out, in a folder."""
    for compiler in compilers.COMPILERS:
        if shutil.which(compiler) is None:
            yield Program(compiler, missing=f"not on the PATH: apt-get install {compiler}")
            continue
        for flags in compilers.flag_sets():
            if compilers.BARE not in flags:
                yield made(f"{compiler} {' '.join(flags)}", (), compiler, flags, folder)
    for architecture in emulated.PROCESSORS:
        yield from cross_programs(architecture, folder)


def cross_programs(architecture: str, folder: Path) -> Iterator[Program]:
    """The program for another instruction set, on QEMU."""
    processor = emulated.PROCESSORS[architecture]
    usual = (f"{processor.libraries}-gcc", f"gcc-{processor.libraries}")
    compiler, package, *needed = CROSS.get(architecture, usual)
    lacking = [name for name in (compiler, processor.emulator[0]) if shutil.which(name) is None]
    if lacking:
        missing = f"not on the PATH: apt-get install {package} qemu-user-static"
        yield Program(f"{compiler}, emulated", missing=missing)
        return
    for level in CROSS_LEVELS:
        flags = (*level, *needed)
        name = f"{compiler} {' '.join(flags)}, on {emulated.emulator_version(architecture)}"
        yield made(name, processor.emulator, compiler, (*flags, "-static"), folder)


def made(
    name: str, emulator: Sequence[str], compiler: str, flags: Sequence[str], folder: Path
) -> Program:
    """The program, or what its compiler said of it last."""
    try:
        program = compilers.compiled(compiler, flags, folder)
    except SystemExit as error:
        return Program(name, failed=" ".join(str(error).split())[-200:])
    return Program(name, (*emulator, str(program)), version(compiler))


def version(compiler: str) -> str:
    """The first line that a compiler says of itself."""
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    return said.splitlines()[0]


@cache
def golden_lines() -> dict[str, str]:
    """Each golden model with its text, as a program reads it."""
    lines = {}
    for name in CONFIGS:
        given = make_vectors.model_given(*random_case(name))
        lines[f"random: {name}"] = " ".join(["model", *(value for _, value in given)])
    return lines


def golden_prints(command: Sequence[str]) -> dict[str, str]:
    """The fingerprints of the golden models, by a program; empty where it gives no answer."""
    lines = golden_lines()
    answers = check_vectors.answers([*lines.values()], command)
    answers += [""] * (len(lines) - len(answers))
    return {name: hashed(said) for name, said in zip(lines, answers, strict=True)}


def hashed(answer: str) -> str:
    """SHA-256 of binary32 numbers that are given as bits; of none, nothing."""
    logits = np.array([int(word, 16) for word in answer.split()], dtype="<u4")
    return hashlib.sha256(logits.data).hexdigest() if answer else ""


def counted(command: Sequence[str]) -> tuple[int, int]:
    """Known answers that a program has, and all."""
    counts, _ = check_vectors.compare(command)
    return sum(right for right, _ in counts.values()), sum(asked for _, asked in counts.values())

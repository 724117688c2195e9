"""Compile exact.c in many ways and compare each program with the known answers.

    python proofs/independent/compilers.py

One row a compiler and set of flags: vectors that are right, and the fingerprint of the fixture.
The last rows of each are controls: what forbids a fused multiply-add is taken away, where the
processor has one. `proofs/portability.py --compiled` has more rows, for the golden models.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import check_vectors

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = HERE / "exact.c"
TINY = ROOT / "tests" / "fixtures" / "tiny"
GOLDEN = ROOT / "tests" / "golden" / "fingerprints.json"
COMPILERS = ("gcc", "clang")
LEVELS = ("-O0", "-O1", "-O2", "-O3")
BARE = "-DNOT_FUSED="  # products are no calls any more


def fused() -> tuple[str, ...]:
    """Flags that allow fused multiply-add across statements, where the processor has one."""
    machine = platform.machine()
    if machine in ("x86_64", "AMD64"):
        known = Path("/proc/cpuinfo")
        has_fma = known.exists() and " fma " in known.read_text()
        return ("-ffp-contract=fast", "-mfma") if has_fma else ()
    return ("-ffp-contract=fast",) if machine in ("aarch64", "arm64", "ppc64le", "s390x") else ()


def flag_sets() -> Iterator[tuple[str, ...]]:
    for level in LEVELS:
        yield (level,)
        yield (level, "-ffp-contract=off")
        if fused():
            yield (level, *fused())
    if fused():
        for level in LEVELS:
            yield (level, *fused(), BARE)


def compiled(compiler: str, flags: Sequence[str], folder: Path, source: Path = SOURCE) -> Path:
    """The program; an error with the compiler's words if it is none."""
    program = folder / "exact"
    warnings = ("-Wall", "-Wextra", "-Wno-unknown-pragmas")
    line = [compiler, "-std=c99", *warnings, *flags, str(source), "-o", str(program), "-lm"]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}: {done.stderr.strip()}")
    return program


def golden() -> tuple[list[int], str]:
    """The token ids of the fixture's text, and its fingerprint."""
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))["tiny"]
    return known["ids"], known["fingerprint"]


def fingerprint(program: Path, ids: Sequence[int], folder: Path = TINY) -> str:
    files = (str(folder / "config.json"), str(folder / "model.safetensors"))
    line = [str(program), *files, *map(str, ids)]
    done = subprocess.run(line, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def row(compiler: str, flags: Sequence[str]) -> tuple[str, bool]:
    """A line of the table, and whether every answer is the known one."""
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(compiler, flags, Path(folder))
        counts, wrong = check_vectors.compare([str(program)])
        ids, known = golden()
        same = fingerprint(program, ids) == known
    right = sum(count[0] for count in counts.values())
    asked = sum(count[1] for count in counts.values())
    answer = "golden" if same else "another"
    return (
        f"| {compiler} | `{' '.join(flags)}` | {right} of {asked} | {answer} |",
        not wrong and same,
    )


def main() -> int:
    present = [compiler for compiler in COMPILERS if shutil.which(compiler)]
    if not present:
        raise SystemExit(f"none of {', '.join(COMPILERS)} on the PATH: apt install gcc clang")
    for compiler in present:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
        print(f"{compiler}: {version.splitlines()[0]}, {platform.machine()}")
    print("\n| compiler | flags | vectors | fingerprint |\n|---|---|---|---|")
    broken = 0
    for compiler in present:
        for flags in flag_sets():
            line, sound = row(compiler, flags)
            print(line, flush=True)
            broken += not sound and BARE not in flags
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

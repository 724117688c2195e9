"""Compare an implementation of exact arithmetic with the known answers.

    python proofs/independent/check_vectors.py               # the library
    python proofs/independent/check_vectors.py ./exact       # any program, with its arguments

The program is started once. It reads vectors on standard input, one a line, as section 8 of
docs/exact.md says, and prints the answer to each on a line of its own, in hexadecimal bits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "vectors"


@dataclass(frozen=True)
class Vector:
    """One known answer."""

    operation: str
    says: str
    line: str
    expected: str


def vectors() -> list[Vector]:
    """All vectors, in the order of their files' names."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            words = [entry["operation"], *(value for _, value in entry["given"])]
            line = " ".join(words)
            found.append(Vector(entry["operation"], entry["says"], line, entry["expected"]))
    return found


def answers(lines: Sequence[str], command: Sequence[str]) -> list[str]:
    """What a program, or without one the library, answers; fewer where it stops."""
    if not command:
        import python_answers

        return [python_answers.answer(line) for line in lines]
    text = "".join(line + "\n" for line in lines)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    if done.returncode:
        print(f"{command[0]} ends with {done.returncode}: {done.stderr.strip()}", file=sys.stderr)
    return [" ".join(line.split()).lower() for line in done.stdout.splitlines()]


def first_difference(given: str, expected: str) -> str:
    """Where an answer leaves the known one."""
    numbers = given.split()
    wanted = expected.split()
    for index, (number, known) in enumerate(zip(numbers, wanted, strict=False)):
        if number != known:
            return f"number {index} is {number}, expected {known}"
    return f"{len(numbers)} numbers, expected {len(wanted)}"


def compare(command: Sequence[str]) -> tuple[dict[str, list[int]], list[str]]:
    """Right answers and vectors of each operation, and what is wrong, one line each."""
    known = vectors()
    given = answers([vector.line for vector in known], command)
    given += [""] * (len(known) - len(given))
    counts: dict[str, list[int]] = {}
    wrong = []
    for vector, found in zip(known, given, strict=False):
        count = counts.setdefault(vector.operation, [0, 0])
        count[1] += 1
        if found == vector.expected:
            count[0] += 1
        else:
            difference = first_difference(found, vector.expected)
            wrong.append(f"{vector.operation} ({vector.says}): {difference}")
    if len(given) != len(known):
        wrong.append(f"{len(given)} answers, expected {len(known)}")
    return counts, wrong


def main(command: Sequence[str]) -> int:
    counts, wrong = compare(command)
    for operation, (right, asked) in counts.items():
        print(f"{operation:14} {right:3} of {asked}")
    right = sum(count[0] for count in counts.values())
    asked = sum(count[1] for count in counts.values())
    print(f"{'all':14} {right:3} of {asked}")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

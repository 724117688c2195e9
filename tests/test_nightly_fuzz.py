"""The nightly fuzzing finds what it looks for, and nothing in a few hundred cases."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="limits processes, as Unix can")
fuzz = pytest.importorskip("fuzz")


def test_a_few_hundred_cases_load_or_are_refused(capsys):
    assert fuzz.main(["--count", "300", "--seed", "7", "--processes", "1"]) == 0
    said = capsys.readouterr().out
    for kind in ("configuration", "tokenizer", "safetensors", "gguf"):
        for outcome in ("loaded", "refused"):
            assert f"{kind} {outcome}" in said
    assert "300  cases of seed 7" in said
    assert "0 failed" in said


def test_a_case_is_the_same_each_time():
    first = [fuzz.outcome(number, 3) for number in range(30)]
    assert first == [fuzz.outcome(number, 3) for number in range(30)]
    assert len(set(first)) > 3


def trips(rng: random.Random, folder: Path) -> None:
    raise KeyError("model_type")


def talks(rng: random.Random, folder: Path) -> None:
    raise fuzz.minikv.MinikvError("two\nlines")


def hangs(rng: random.Random, folder: Path) -> None:
    time.sleep(60)


def dies(rng: random.Random, folder: Path) -> None:
    os._exit(3)


def swells(rng: random.Random, folder: Path) -> None:
    assert len(b"x" * (300 * 2**20)) > 0


def fine(rng: random.Random, folder: Path) -> None:
    return


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (trips, "KeyError: 'model_type'"),
        (talks, "refused in 9 characters"),
        (hangs, "more than 6"),
        (dies, "its process died (3)"),
        (swells, "MB, expected at most"),
    ],
)
@pytest.mark.slow
def test_what_must_not_happen_is_reported_with_its_case(kind, said):
    # The controls; the cases around it run all the same.
    kinds = (fine, fine, kind, fine, fine)
    counts, failures, _ = fuzz.fuzz(5, seed=0, processes=1, seconds=6.0, megabytes=250, kinds=kinds)
    assert len(failures) == 1
    number, reason = failures[0]
    assert said in reason
    assert number == (-1 if kind is swells else 2)
    assert counts["fine loaded"] == 4

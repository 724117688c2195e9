"""``minikv demo`` says what it measured, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import minikv
from minikv import cli
from minikv.commands import demo
from minikv.experiments.demo import CACHES, Decoded, demonstrate

TINY = str(Path(__file__).parents[1] / "fixtures" / "tiny")


@pytest.fixture(scope="module")
def model() -> minikv.Model:
    return minikv.load(TINY, "exact")


def test_a_cache_that_loses_nothing_gives_the_full_caches_bits_and_a_window_does_not(model):
    ids = list(range(20))
    found = demonstrate(model, ids, 8)
    full = found["full"]
    assert list(found) == list(CACHES)
    assert found["none"].same_bits(full)
    assert found["residual@8"].same_bits(full)
    assert not found["window@8"].same_bits(full)
    assert full.tokens == list(model.generate(ids, 8, stop=()))


def test_it_tells_every_step_and_comes_to_an_end(model):
    told = []
    demonstrate(model, [1, 2, 3], 2, lambda *step: told.append(step[1:]))
    assert told == [(done, 8) for done in range(1, 9)]


def test_the_first_other_token_is_counted_from_one():
    logits = np.zeros((3, 4), np.float32)
    full = Decoded("full", [1, 2, 3], logits, 0)
    assert Decoded("none", [1, 2, 3], -logits, 0).first_other_token(full) is None
    assert not Decoded("none", [1, 2, 3], -logits, 0).same_bits(full)
    assert Decoded("none", [1, 0, 3], logits, 0).first_other_token(full) == 2


def test_json_has_every_figure_that_is_printed(capsys):
    words = ["demo", "Hello there, my friend", "--model", TINY, "--new-tokens", "6"]
    assert cli.main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = {row["cache"]: row for row in figures["exact"]}
    assert rows["none"]["same_bits"]
    assert not rows["window@8"]["same_bits"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "In exact arithmetic no cache and KV-Direct gave every bit" in said
    assert max(map(len, said.splitlines()[4:-1])) <= 80


def tables(**float32: bool) -> dict[str, list[dict[str, object]]]:
    """Tables in which exact arithmetic lost only by the window."""
    exact = {"full": True, "none": True, "residual@8": True, "window@8": False}
    return {
        name: [{"cache": cache, "same_bits": same} for cache, same in equal.items()]
        for name, equal in (("exact", exact), ("float32", exact | float32))
    }


def test_the_conclusion_is_drawn_from_the_tables():
    assert "In float32" not in demo.conclusion(tables())
    assert "In float32" in demo.conclusion(tables(none=False))
    failed = tables()
    failed["exact"][1]["same_bits"] = False
    assert demo.conclusion(failed).startswith("The claim FAILED here")
    kept = tables()
    kept["exact"][3]["same_bits"] = True
    assert "window" not in demo.conclusion(kept)


def test_a_prompt_without_room_is_refused(capsys):
    assert cli.main(["demo", "x" * 5000, "--model", TINY]) == 2
    assert capsys.readouterr().err.count("\n") == 1

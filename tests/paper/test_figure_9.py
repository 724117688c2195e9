"""What lengths alone make certain of a window's match."""

from __future__ import annotations

import pytest

import minikv
from minikv.experiments.compare import compare
from minikv.paper.claims.figure_9 import certain, shortest_prompt

NEW = 20


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prompt", [4, 12, 30])
def test_a_window_has_the_full_caches_bits_as_long_as_is_certain_and_loses_them_then(seed, prompt):
    model = minikv.random_model(minikv.tiny_config(), seed=seed, arithmetic="exact")
    ids = [(seed + 5 * n) % 97 for n in range(prompt)]
    for budget in (2, 10, 13, 25, 60):
        steps = round(certain(prompt, budget, NEW) * NEW / 100)
        if steps:
            (row,) = compare(model, {"text": ids}, [budget], steps, ["window"])
            assert row["bits_equal"]
            assert row["match"] == 1.0
        if steps < NEW:
            (row,) = compare(model, {"text": ids}, [budget], steps + 1, ["window"])
            assert not row["bits_equal"]


def test_a_match_says_how_long_the_prompt_must_be():
    for match in (2, 34, 88, 100):
        prompt = shortest_prompt(match, 256, 250)
        assert certain(prompt, 256, 250) <= match
        assert prompt == 1 or certain(prompt - 1, 256, 250) > match

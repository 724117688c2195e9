"""What figure 4's claim makes of rows."""

from __future__ import annotations

import pytest

import minikv
from minikv.experiments.compare import compare
from minikv.paper.claim import Verdict
from minikv.paper.claims import figure_4
from minikv.paper.claims.figure_4 import (
    BUDGETS,
    PAPER,
    alike,
    at_kept_rows,
    by_name,
    cells,
    lossless,
)

ROW = {"policy": "h2o", "budget": 32, "prompt": "a", "match": 0.5, "kl_mean": 1.0, "kl_free": 4.0}


def test_cells_are_means_over_texts_with_their_spread():
    rows = [{**ROW, "kl_parted": 6.0}, {**ROW, "prompt": "b", "match": 1.0, "kl_parted": None}]
    (cell,) = cells(rows)
    assert (cell["match"], cell["least"], cell["most"]) == (75.0, 50.0, 100.0)
    assert (cell["kl_same"], cell["kl_free"], cell["kl_parted"]) == (1.0, 4.0, 6.0)


def test_policies_are_alike_where_all_figures_of_a_text_are_the_same():
    other = {**ROW, "policy": "tova"}
    rows = [ROW, other, {**ROW, "prompt": "b"}, {**other, "prompt": "b", "kl_free": 4.5}]
    assert alike(rows, "h2o", "tova") == [1, 2]


def test_the_papers_cells_are_five_policies_at_five_budgets():
    assert [*PAPER] == ["h2o", "streaming_llm", "snapkv", "tova", "window"]
    cells_of = [value for rows in PAPER.values() for row in rows for value in row]
    assert len(cells_of) == 2 * len(PAPER) * len(BUDGETS)
    assert (min(cells_of), max(cells_of)) == figure_4.PAPER_MATCH
    assert PAPER["h2o"][1] == PAPER["tova"][1]
    assert PAPER["h2o"][0] != PAPER["tova"][0]


def test_right_and_faulty_policies_part_where_rows_are_dropped_and_only_there():
    model = minikv.random_model(minikv.tiny_config(), seed=0, arithmetic="exact")
    prompts = {"text": list(range(30))}
    for budget, equal in ((8, False), (64, True)):
        for name in PAPER:
            makers = {
                "right": lambda weights, size, name=name: by_name(name, weights, size),
                "wrong": lambda weights, size, name=name: at_kept_rows(name, weights, size),
            }
            right, wrong = compare(model, prompts, [budget], 6, makers)
            assert (right["kl_mean"] == wrong["kl_mean"]) == equal, (name, budget)


def test_kv_direct_loses_no_bit():
    model = minikv.random_model(minikv.tiny_config(), seed=0, arithmetic="exact")
    told = lossless(model, list(range(40)), 5)
    assert told == {"residual:every": True, "residual:embedding": True}


def entry(policy: str, budget: int, **changes) -> dict:
    given = {"policy": policy, "budget": budget, "match": 10.0, "least": 0.0, "most": 30.0}
    return given | {"kl_same": 0.3, "kl_free": 6.0, "kl_parted": 8.0} | changes


def figures(**changes) -> dict:
    right = [entry(name, budget, **changes) for name in PAPER for budget in BUDGETS]
    faulty = [entry(name, budget, match=1.0) for name in PAPER for budget in BUDGETS]
    return {"right": right, "faulty": faulty, "h2o_is_tova": [0, 25]}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.ONE_READING),
        ({"kl_parted": 3.0}, Verdict.DIFFERS),  # free runs are not that far apart either
        ({"kl_same": 8.0}, Verdict.DIFFERS),  # the first reading would do
        ({"least": 90.0, "most": 100.0}, Verdict.DIFFERS),  # the match is not the paper's
    ],
)
def test_the_verdict_follows_the_figures(changes, verdict):
    assert figure_4.told_of(figures(**changes)).verdict is verdict

"""``minikv drafts``: what is counted of a lossy cache's guesses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import minikv
from minikv.experiments.drafts import Setting, drafts, summary

SETTING = Setting(new_tokens=6, ahead=3, tokens=10)


def rows_of(policies, budgets):
    config = minikv.tiny_config(tie_word_embeddings=False)
    model = minikv.random_model(config, 4, "exact", scale=3.0)
    rng = np.random.default_rng(0)
    prompts = {name: rng.integers(0, 97, 14).tolist() for name in ("one", "two")}
    return drafts(model, prompts, policies, budgets, SETTING)


def test_every_prompt_policy_and_budget_has_a_row_and_no_token_changes():
    rows = rows_of(["window", "h2o"], [3, 8])
    assert len(rows) == 8
    assert {row["tokens"] for row in rows} == {10}
    assert all(row["same_tokens"] for row in rows)
    for row in rows:
        assert row["calls"] + row["saved"] == SETTING.new_tokens - 1
        assert row["accepted"] <= row["drafted"]


def test_a_draft_that_loses_nothing_is_always_right_and_a_small_window_is_not():
    perfect, lossy = (summary(rows_of(["window"], [budget]))[0] for budget in (64, 2))
    assert perfect["accepted"] == 1.0
    assert lossy["accepted"] < 1.0
    assert perfect["saved"] > lossy["saved"]


def test_the_committed_figures_are_of_eight_texts_and_add_up():
    path = Path(__file__).parents[2] / "docs" / "experiments" / "drafts.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["rows"] == summary(told["prompts"])
    assert {row["texts"] for row in told["rows"]} == {8}
    assert told["command"].startswith("minikv drafts ")
    one_by_one = told["new_tokens"] - 1
    assert all(row["calls"] + row["saved"] == one_by_one for row in told["prompts"])

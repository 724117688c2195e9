"""``minikv generate --draft``: the tokens of the verifier alone, and what the draft saved."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from minikv.caches import POLICIES

TINY = str(Path(__file__).parents[1] / "fixtures" / "tiny")
ASKED = ("generate", "Hello there", "--model", TINY, "--arithmetic", "exact", "--json")


@pytest.fixture(autouse=True)
def registry():
    """A policy of the atlas that is asked for is registered, and gone after the test."""
    with patch.dict(POLICIES):
        yield


def said(run, *more: str) -> dict:
    code, out, _ = run(*ASKED, "--max-new-tokens", "7", *more)
    assert code == 0
    return json.loads(out)


@pytest.mark.parametrize("draft", ["window", "streaming_llm@5", "atlas:trim_kv", "none"])
def test_a_draft_changes_no_token(run, draft):
    alone = said(run)
    budget = [] if "@" in draft or draft == "none" else ["--budget", "4"]
    drafted = said(run, "--draft", draft, *budget)
    assert drafted["ids"] == alone["ids"]
    assert drafted["cache_tokens"] == alone["cache_tokens"]
    assert drafted["verifier_calls"] + drafted["verifier_calls_saved"] == len(alone["ids"]) - 1
    assert drafted["accepted"] <= drafted["drafted"]


def test_the_budget_that_is_told_is_the_drafts_own_and_the_verifier_has_another(run):
    told = said(run, "--draft", "window@5", "--cache", "residual@3")
    assert told["draft_budget"] == 5
    told = said(run, "--draft", "window", "--budget", "4", "--cache", "residual@3")
    assert told["draft_budget"] == 4


def test_a_stop_word_leaves_no_guess_in_the_verifiers_cache(run):
    text = said(run)["text"]
    stop = ("--stop", text[len(text) // 2 :][:2])
    alone = said(run, *stop)
    assert alone["ended_by"] == "stop string"
    drafted = said(run, "--draft", "none", "--ahead", "6", *stop)
    assert drafted["ids"] == alone["ids"]
    assert drafted["cache_tokens"] == alone["cache_tokens"]


def test_a_draft_that_loses_nothing_saves_calls(run):
    """And one that is lossy saves fewer: what is counted is not what was asked for."""
    perfect = said(run, "--draft", "none", "--ahead", "4")
    lossy = said(run, "--draft", "window", "--budget", "2", "--ahead", "4")
    assert perfect["accepted"] == perfect["drafted"]
    assert perfect["verifier_calls"] == 2
    assert lossy["verifier_calls"] > perfect["verifier_calls"]


def test_draws_with_a_seed_are_those_of_one_by_one(run):
    drawn = ("--temperature", "0.9", "--seed", "5")
    assert (
        said(run, "--draft", "window", "--budget", "4", *drawn)["ids"] == said(run, *drawn)["ids"]
    )
    assert said(run, *drawn)["ids"] != said(run)["ids"]


def test_figures_are_a_line_on_standard_error(run):
    words = [word for word in ASKED if word != "--json"]
    code, out, err = run(*words, "--max-new-tokens", "6", "--draft", "window", "--budget", "4")
    assert code == 0
    assert out.startswith("Hello there")
    assert "[draft window: " in err
    assert "fewer than one by one" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ahead", "3"), "give --draft POLICY"),
        (("--draft", "window", "--cache", "h2o"), "cannot be cut back"),
        (("--draft", "window", "--ranks", "2"), "runs on one rank"),
        (("--draft", "window", "--logprobs", "2"), "leave --logprobs and --stream out"),
        (("--draft", "window", "--load-cache", "x"), "neither --prompts nor --load-cache"),
        (("--draft", "atlas:nothing"), "the atlas has no policy 'nothing'"),
        (("--draft", "window", "--budget", "0"), "budget is 0"),
    ],
)
def test_what_does_not_go_with_a_draft_is_refused(run, words, message):
    code, _, err = run(*ASKED, *words)
    assert code == 2
    assert message in err


def test_drafts_prints_a_table_or_all_figures(run):
    words = ("drafts", "--model", TINY, "--policies", "window", "--budgets", "16")
    code, out, _ = run(*words, "--new-tokens", "3")
    assert code == 0
    assert "accepted" in out
    code, out, _ = run(*words, "--new-tokens", "3", "--json")
    told = json.loads(out)
    assert (told["new_tokens"], len(told["prompts"])) == (3, 8)
    assert {"command", "date", "machine"} <= told.keys()

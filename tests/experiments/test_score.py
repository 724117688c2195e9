"""Likelihoods of texts and of endings."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from experiments.toys import texts
from experiments.toys import tiny as random_tiny

import minikv
from minikv.errors import InputError, TokenizerError
from minikv.experiments import policy_cache
from minikv.experiments.score import (
    SAMPLE,
    Question,
    Scored,
    accuracy,
    at_once,
    encoded,
    log_likelihoods,
    perplexity,
    pieces,
    read_questions,
    read_text,
    score,
    step_by_step,
)

QUESTIONS = read_questions(str(SAMPLE))


@pytest.fixture(scope="module")
def model(tiny):
    return minikv.load(tiny, "exact")


def test_likelihoods_are_logarithms_of_a_distribution():
    logits = np.random.default_rng(0).normal(0, 9, (4, 7)).astype(np.float32)
    columns = [log_likelihoods(logits, [token] * 4) for token in range(7)]
    total = np.exp(columns).sum(axis=0)
    # Each is off by a few roundings of numbers below 60; seven are added.
    assert np.abs(total - 1).max() <= 7 * 60 * 8 * 2.0**-53
    assert_same_bits(log_likelihoods(logits + 0, [2] * 4), columns[2])


def test_equal_logits_have_the_vocabulary_for_a_perplexity():
    assert perplexity([log_likelihoods(np.zeros((3, 64)), [1, 2, 3])]) == pytest.approx(
        64, rel=1e-15
    )


@pytest.mark.parametrize("policy", ["full", "none", "residual:every@3", "window@19"])
def test_step_by_step_has_the_bits_of_one_pass_where_nothing_is_lost(policy):
    model = random_tiny()
    given = list(texts(2, 18).values())  # of two lengths, in one batch
    jobs = [(ids, policy_cache(policy, model.weights)) for ids in given]
    for ids, found in zip(given, step_by_step(model, jobs), strict=True):
        assert_same_bits(found, at_once(model, ids))


def test_a_window_changes_likelihoods_from_the_first_token_that_loses_one():
    model = random_tiny()
    (ids,) = texts(1, 20).values()
    (found,) = step_by_step(model, [(ids, policy_cache("window@6", model.weights))])
    whole = at_once(model, ids)
    assert_same_bits(found[:7], whole[:7])  # the 7th reads 6 before it and itself
    assert not same_bits(found[7:], whole[7:])


def test_a_text_is_cut_into_whole_pieces_and_a_short_one_is_refused():
    assert pieces(range(7), 3) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(InputError, match=r"a.txt has 2 tokens, expected at least 3"):
        pieces([1, 2], 3, "a.txt")


def test_our_questions_are_read_tidied():
    assert len(QUESTIONS) == 10
    assert {question.label for question in QUESTIONS} == {0, 1, 2, 3}
    chess = QUESTIONS[-1].context
    assert chess.startswith("Playing chess: Two old men")
    assert chess.endswith("One of them thinks for a long while. Then he")
    assert not any("[" in question.context for question in QUESTIONS)


GOOD = {"ctx": "A cat", "endings": ["sleeps.", "barks."], "label": "0"}


def test_a_line_may_have_one_context_and_a_label_in_words(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(f"\n{json.dumps(GOOD)}\n")
    assert read_questions(path) == [Question("A cat", ("sleeps.", "barks."), 0)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: expected an object"),
        (json.dumps({**GOOD, "endings": None}), "endings is None"),
        (json.dumps({**GOOD, "endings": ["one"]}), "expected two or more texts"),
        (json.dumps({**GOOD, "endings": ["one", 2]}), "expected two or more texts"),
        (json.dumps({**GOOD, "endings": ["one", "[x]"]}), "expected two or more texts"),
        (json.dumps({"ctx": "A cat", "label": 0}), "endings is None"),
        (json.dumps({**GOOD, "label": 2}), "label is 2, expected the number"),
        (json.dumps({**GOOD, "label": ""}), "label is ''"),
        (json.dumps({**GOOD, "ctx": ""}), "no context"),
        ("", "holds no questions"),
    ],
)
def test_what_is_no_question_is_refused_in_one_line(tmp_path, line, told):
    path = tmp_path / "q.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=told) as error:
        read_questions(path)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path, model):
    path = tmp_path / "a"
    path.write_bytes(b"\xff")
    for read in (read_questions, partial(read_text, model)):
        with pytest.raises(InputError, match="not UTF-8"):
            read(path)


def test_a_model_without_a_tokenizer_cannot_read():
    for call in (partial(encoded, question=QUESTIONS[0]), partial(read_text, path=SAMPLE)):
        with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
            call(random_tiny())


def test_an_ending_has_the_likelihood_that_one_pass_over_the_text_gives(model):
    for question in QUESTIONS[:3]:
        found = score(model, question, model.new_cache)
        context, endings = encoded(model, question)
        for total, ids in zip(found.sums, endings, strict=True):
            assert total == float(at_once(model, [*context, *ids])[-len(ids) :].sum())


@pytest.mark.parametrize("question", QUESTIONS[:4])
def test_a_window_changes_no_score_of_a_text_that_is_no_longer_and_one_that_is_shorter_does(
    model, question
):
    """Why a window of 64 has the full cache's accuracy where prompts are shorter than 64."""
    full = score(model, question, model.new_cache)
    for budget in (full.context, full.longest):
        window = partial(model.new_cache, "window", budget=budget)
        assert score(model, question, window) == full
    window = partial(model.new_cache, "window", budget=full.context - 1)
    assert score(model, question, window).sums != full.sums


def test_the_ending_is_chosen_by_what_it_is_divided_by():
    scored = Scored(1, (-10.0, -12.0, -9.0), (5, 8, 3), (20, 30, 10), 4)
    assert [scored.chosen(length) for length in ("characters", "tokens", "")] == [1, 1, 2]
    assert scored.longest == 12
    wrong = Scored(0, (-10.0, -12.0, -9.0), (5, 8, 3), (20, 30, 10), 4)
    assert accuracy([scored, wrong]) == 0.5
    assert accuracy([scored, wrong], "") == 0.0

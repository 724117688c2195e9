"""Text in, text out: a batch is each text alone, and a completion says why it ended."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.completion import StopStrings, log_probability
from minikv.errors import InputError, TokenizerError

TINY = Path(__file__).parent / "fixtures" / "tiny"
TEXTS = ["Hello there", "a", "The residual stream is all the state"]


@pytest.fixture(scope="module")
def model() -> minikv.Model:
    return minikv.load(TINY, "exact")


def test_a_text_is_continued_as_its_ids_are(model):
    ids = model.tokenizer.encode("Hello there")
    completion = model.complete("Hello there", 9)
    assert completion.ids == list(model.generate(ids, 9))
    assert completion.text == model.tokenizer.decode(completion.ids, after=ids)
    assert completion.ended_by == "length"


@pytest.mark.parametrize("cache", ["full", "none", "residual"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_each_text_of_a_batch_is_what_it_is_alone(model, cache, temperature):
    settings = {"cache": cache, "temperature": temperature, "seed": 3}
    batch = model.complete(TEXTS, 8, **settings)
    alone = [model.complete(text, 8, **settings) for text in TEXTS]
    assert [each.ids for each in batch] == [each.ids for each in alone]
    assert [each.log_probs for each in batch] == [each.log_probs for each in alone]


def test_each_text_is_told_as_soon_as_it_has_ended(model):
    alone = model.complete(TEXTS[1], 8)
    told: list[tuple[int, str, int]] = []

    def end(number, completion):
        told.append((number, completion.ended_by, len(completion.ids)))

    stop = [alone.text[3:5]]
    found = model.complete(TEXTS, 8, stop=stop, ended=end)
    assert told[0][0] == 1, "the second one ends first"
    assert sorted(told) == [
        (number, each.ended_by, len(each.ids)) for number, each in enumerate(found)
    ]
    assert [length for _, _, length in told] == sorted(length for _, _, length in told)


def test_texts_of_a_batch_are_not_each_others(model):
    """The control: other texts have other continuations."""
    first, second, _ = model.complete(TEXTS, 8)
    assert first.ids != second.ids


def test_log_probabilities_are_those_of_the_whole_text(model):
    ids = model.tokenizer.encode("Hello there")
    completion = model.complete("Hello there", 5, temperature=2.0, seed=1)
    logits = model.logits(ids + completion.ids)
    expected = [
        log_probability(logits[len(ids) - 1 + step], token)
        for step, token in enumerate(completion.ids)
    ]
    assert completion.log_probs == expected  # exact: the same logits, bit for bit


def test_probabilities_sum_to_one():
    logits = np.array([3.0, -1.0, 0.5, 700.0], np.float32)
    total = math.fsum(math.exp(log_probability(logits, token)) for token in range(4))
    # each term: one rounding of exp and one of ln, on numbers below 1; 4 terms
    assert abs(total - 1) < 4 * 2**-50


def test_log_probabilities_are_taken_in_float64():
    logits = np.array([3.0, -1.0, 0.5, 2.25], np.float32)
    total = math.fsum(math.exp(log_probability(logits, token)) for token in range(4))
    assert abs(total - 1) < 4 * 2**-50


def test_a_penalty_knows_the_prompt(model):
    """Of a text whose own words would come next."""
    text = "the the the the"
    ids = model.tokenizer.encode(text)
    completion = model.complete(text, 12, repetition_penalty=2.0)
    assert completion.ids == list(model.generate(ids, 12, repetition_penalty=2.0))
    plain = model.complete(text, 12)
    assert set(plain.ids) & set(ids)
    assert completion.ids != plain.ids


words = st.text("ab ", min_size=1, max_size=4)


@given(st.lists(words, min_size=1, max_size=3), st.lists(words, max_size=8))
def test_text_ends_before_the_first_stop_string_in_whatever_pieces_it_comes(stop, pieces):
    text = "".join(pieces)
    stops = StopStrings(stop)
    shown = "".join(map(stops.put, pieces))
    if not stops.found:
        shown += stops.rest()
    assert stops.found == any(each in text for each in stop)
    assert text.startswith(shown)
    assert stops.found or shown == text
    assert not any(each in shown for each in stop)
    whole = StopStrings(stop).put(text)
    if stops.found:
        assert whole == text[: min(text.index(each) for each in stop if each in text)]


def test_a_stop_string_ends_a_text_and_is_not_in_it(model):
    whole = model.complete("Hello there", 12)
    part = whole.text[3:5]
    stopped = model.complete("Hello there", 12, stop=["never said", part])
    assert stopped.ended_by == "stop string"
    assert stopped.text == whole.text[: whole.text.index(part)]
    assert stopped.ids == whole.ids[: len(stopped.ids)]
    assert len(stopped.ids) < len(whole.ids)


def test_a_text_that_ended_leaves_the_others_in_peace(model):
    stop = model.complete(TEXTS[0], 12).text[1:3]
    batch = model.complete(TEXTS, 12, stop=[stop])
    assert batch[0].ended_by == "stop string"
    assert [each.ids for each in batch] == [model.complete(t, 12, stop=[stop]).ids for t in TEXTS]


def test_a_full_context_ends_a_text(model):
    context = model.config.max_position_embeddings
    completion = model.complete("Hello there", 2 * context)
    if completion.ended_by == "context":
        length = len(model.tokenizer.encode("Hello there")) + len(completion.ids)
        assert length == context
    else:
        assert completion.ended_by == "stop token"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stop": "word"}, "expected a list of texts"),
        ({"stop": [""]}, "expected a list of texts"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 3}, "temperature"),
    ],
)
def test_wrong_parameters_are_refused(model, given, said):
    with pytest.raises(InputError, match=said):
        model.complete("Hello", **given)


def test_an_empty_text_is_refused(model):
    with pytest.raises(InputError):
        model.complete(["Hello", ""])


def test_a_model_without_a_tokenizer_says_so():
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        minikv.random_model(minikv.tiny_config()).complete("Hello")


def test_generate_says_that_a_text_must_be_encoded(model):
    with pytest.raises(InputError, match="encode"):
        model.generate("Hello")

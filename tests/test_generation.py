"""Generation token by token, and drawing from logits."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minikv
from minikv.caches import POLICIES
from minikv.errors import ArithmeticRangeError, InputError, MinikvError
from minikv.generation import (
    LARGEST_PENALTY,
    at_least,
    candidates,
    finite_logits,
    nucleus,
    penalised,
    sampler,
)
from minikv.memory import Told

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def greedy(model: minikv.Model, text: list[int], count: int) -> list[int]:
    """The definition: the most likely token after one pass over everything so far."""
    text = list(text)
    for _ in range(count):
        text.append(int(np.argmax(model.logits(text)[-1])))
    return text[-count:]


@pytest.mark.parametrize("cache", ["full", "none", "residual"])
def test_greedy_decoding_takes_the_most_likely_token(cache):
    assert list(EXACT.generate(TEXT, 12, cache)) == greedy(EXACT, TEXT, 12)


def test_generation_goes_on_where_the_cache_is():
    cache = EXACT.new_cache()
    first = list(EXACT.generate(TEXT, 5, cache))
    assert cache.seen == len(TEXT) + 4  # the last token was chosen, not fed
    more = list(EXACT.generate(first[-1:], 5, cache))
    assert first + more == greedy(EXACT, TEXT, 10)


def test_generation_stops_at_a_stop_token_and_yields_it():
    tokens = greedy(EXACT, TEXT, 12)
    stop = tokens[5]
    cut = tokens[: tokens.index(stop) + 1]
    assert list(EXACT.generate(TEXT, 12, stop={stop})) == cut
    config = minikv.tiny_config(eos_token_id=(stop,))
    model = minikv.random_model(config, seed=1, arithmetic="exact")
    assert list(model.generate(TEXT, 12)) == cut
    assert list(model.generate(TEXT, 12, stop=[])) == tokens


def test_generation_ends_where_the_context_is_full():
    model = minikv.random_model(minikv.tiny_config(max_position_embeddings=27), seed=1)
    cache = model.new_cache()
    assert len(list(model.generate(TEXT, 100, cache))) == 3
    assert cache.seen == 26
    assert len(list(model.generate([1], 0, cache))) == 0
    with pytest.raises(InputError, match="the prompt has 27 tokens, expected at most 26"):
        model.generate([1], 1, cache)


def test_streaming_llm_generates_past_the_context():
    model = minikv.random_model(minikv.tiny_config(max_position_embeddings=27), seed=1)
    cache = model.new_cache("streaming_llm", budget=20)
    assert len(list(model.generate(TEXT, 100, cache))) == 100
    assert cache.seen == 24 + 99


def test_tokens_come_one_at_a_time():
    cache = EXACT.new_cache()
    stream = EXACT.generate(TEXT, 100, cache)
    assert cache.seen == 0  # nothing runs before the first is asked for
    next(stream)
    assert cache.seen == 24
    stream.close()
    assert cache.seen == 24


def test_a_cache_of_another_model_is_refused_before_the_first_token():
    other = minikv.random_model(EXACT.config, 2, "exact")
    with pytest.raises(InputError, match="a cache is not of this model"):
        EXACT.generate([1], 3, cache=other.new_cache())


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_telling_how_far_a_prompt_is_read_changes_no_bit(arithmetic):
    model = minikv.random_model(minikv.tiny_config(), seed=3, arithmetic=arithmetic)
    for name, policy in POLICIES.items():
        for settings in policy.examples(4):
            told: list[tuple[float, float]] = []
            plain = model.new_cache(name, **settings)
            cache = model.new_cache(name, **settings)
            memory = Told(cache, lambda label, *far, told=told: told.append(far))
            for part in (TEXT, TEXT[:1]):
                logits = model.forward([part], [memory])
                assert logits.tobytes() == model.forward([part], [plain]).tobytes(), name
            assert told == [(0, 2), (1, 2)] * 2
            assert cache.nbytes == plain.nbytes


def test_an_observer_sees_each_step_and_changes_nothing():
    seen: list[tuple[bytes, int]] = []
    settings = {"temperature": 2.0, "seed": 3, "repetition_penalty": 1.5}

    def look(logits, token):
        seen.append((logits.tobytes(), token))

    tokens = list(EXACT.generate(TEXT, 5, observer=look, **settings))
    assert tokens == list(EXACT.generate(TEXT, 5, **settings))
    logits = EXACT.logits([*TEXT, *tokens])[-6:-1]  # of the model: neither drawn nor penalised
    assert seen == [(row.tobytes(), token) for row, token in zip(logits, tokens, strict=True)]


# Sampling


def test_sampling_repeats_by_seed_and_differs_between_seeds():
    def sample(seed):
        return list(EXACT.generate(TEXT, 20, temperature=2.0, seed=seed))

    assert sample(3) == sample(3)
    assert sample(3) != sample(4)


def test_only_the_most_likely_tokens_are_drawn():
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625]))

    def drawn(top_k, top_p):
        choose = sampler(1.0, top_k, top_p, 0)
        return {choose(logits) for _ in range(400)}

    assert drawn(None, None) == {0, 1, 2, 3, 4}
    assert drawn(2, None) == {0, 1}
    assert drawn(1, None) == {0}
    assert drawn(50, None) == {0, 1, 2, 3, 4}
    assert drawn(None, 0.4) == {0}
    assert drawn(None, 0.7) == {0, 1}  # 0.5 does not reach 0.7
    assert drawn(None, 1.0) == {0, 1, 2, 3, 4}
    assert drawn(3, 0.8) == {0, 1}  # of the three, 0.57 and 0.29 are enough


def test_top_p_that_is_reached_exactly_takes_no_token_more():
    choose = sampler(1.0, None, 0.5, 0)
    assert {choose(np.zeros(4)) for _ in range(300)} == {0, 1}


@pytest.mark.parametrize(
    ("equal", "top_p", "kept"),
    [(10, 0.8, 8), (10, 0.9, 9), (10, 0.3, 3), (100, 0.07, 7), (100, 0.29, 29), (3, 2 / 3, 2)],
)
def test_rounding_puts_no_token_more_into_the_nucleus(equal, top_p, kept):
    """Of equal tokens; the sum of ten times 0.1, one after the other, never is 0.8 nor 0.9."""
    ids, p = candidates(np.zeros(equal), 1.0)
    assert len(nucleus(ids, p, top_p)[0]) == kept
    assert len(nucleus(ids, p, top_p + 2.0**-30)[0]) == kept + 1  # which is missing by more
    assert len(nucleus(ids, p, top_p - 2.0**-30)[0]) == kept


@given(st.integers(0, 2**20), st.integers(1, 300), st.sampled_from([0.5, 2.0, 20.0]), st.data())
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(seed, size, spread, data):
    """In exact sums of the same probabilities."""
    logits = np.round(np.random.default_rng(seed).normal(size=size) * spread, 1)  # with ties
    ids, p = candidates(logits, 1.0)
    reached = [float(one) for one in np.cumsum(p) if one < 1]
    edges = st.sampled_from(reached or [0.5])
    top_p = data.draw(st.one_of(st.floats(1e-3, 1.0, exclude_max=True), edges))
    chosen, renormalised = nucleus(ids, p, top_p)
    masses = [Fraction(float(one)) for one in p]
    sums = [Fraction(0), *itertools.accumulate(masses)]
    assert chosen.tolist() == ids[: len(chosen)].tolist()
    assert sums[len(chosen)] >= Fraction(top_p) - Fraction(1, 2**31)
    assert sums[len(chosen) - 1] < Fraction(top_p)
    assert (np.diff(logits[ids]) <= 0).all()  # most likely first
    assert abs(math.fsum(renormalised) - 1) <= size * 2.0**-52


def test_a_top_p_of_1_keeps_every_token():
    ids, p = candidates(np.array([0.0, -40.0, -800.0]), 1.0)  # of which one weighs 2**-57, one 0
    assert nucleus(ids, p, 1.0)[0].tolist() == [0, 1, 2]
    assert nucleus(ids, p, 1.0 - 2.0**-20)[0].tolist() == [0]


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_negative_of_tokens_said():
    logits = np.array([4.0, -4.0, 0.0, 3.0])
    assert penalised(logits, [0, 1, 1, 2], 2.0).tolist() == [2.0, -8.0, 0.0, 3.0]
    assert logits.tolist() == [4.0, -4.0, 0.0, 3.0]
    assert penalised(logits, [], 2.0) is penalised(logits, [0], 1.0) is logits
    assert sampler(0.0, None, None, 0, repetition_penalty=2.0)(logits, [0]) == 3
    assert sampler(0.0, None, None, 0)(logits, [0]) == 0


def test_min_p_keeps_what_is_at_least_so_likely_beside_the_likeliest():
    logits = np.log([0.5, 0.25, 0.2, 0.05])
    for min_p, expected in ((0.0, 4), (0.1, 4), (0.11, 3), (0.41, 2), (0.51, 1), (1.0, 1)):
        choose = sampler(1.0, None, None, 0, min_p=min_p)
        assert {choose(logits) for _ in range(400)} == set(range(expected))


def test_what_is_missing_by_2_to_the_minus_32_counts_as_reached_and_more_does_not():
    ids = np.arange(3)
    for missing, kept in ((0.0, 1), (0.75, 1), (1.0, 1), (1.25, 2), (2.0, 2)):
        p = np.array([0.5 - missing * 2.0**-32, 0.3, 0.2 + missing * 2.0**-32])
        assert len(nucleus(ids, p, 0.5)[0]) == kept


def test_the_largest_penalty_makes_no_logit_nan():
    logits = np.array([4.0, 0.0, -2.0], np.float32)
    choose = sampler(0.0, None, None, 0, repetition_penalty=LARGEST_PENALTY)
    assert choose(logits, [0, 1, 2]) == 0
    least = np.float32(4.0) / np.float32(LARGEST_PENALTY)
    assert penalised(logits, [0, 1, 2], LARGEST_PENALTY).tolist() == [least, 0.0, -math.inf]
    more = math.nextafter(LARGEST_PENALTY, math.inf)
    with pytest.raises(InputError, match="expected one above 0, and at most"):
        sampler(0.0, None, None, 0, repetition_penalty=more)


def test_a_penalty_knows_every_token_that_was_said_however_long_ago():
    logits = np.ones(4)
    for ago in (1, 63, 64, 65, 500, 5000):
        assert penalised(logits, [0, *[2] * ago], 2.0).tolist() == [0.5, 1.0, 0.5, 1.0]


def test_min_p_keeps_what_is_exactly_so_likely():
    ids, p = at_least(np.arange(3), np.array([0.5, 0.25, 0.25]), 0.5)
    assert ids.tolist() == [0, 1, 2]
    assert p.tolist() == [0.5, 0.25, 0.25]


def test_probabilities_are_those_of_the_float64_logits():
    """Float32 logits are not subtracted in float32, where half of a unit is lost beyond 2**24."""
    logits = np.array([2.0**24, 1.5, 2.0**23 + 0.5], np.float32)
    for temperature in (1.0, 2.0**20, 2.0**24):
        for got, expected in zip(
            candidates(logits, temperature),
            candidates(logits.astype(np.float64), temperature),
            strict=True,
        ):
            assert got.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"min_p": -0.1}, "min_p is -0.1, expected a number from 0 to 1"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"min_p": "0.5"}, "min_p is '0.5', expected a number from 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0, expected one above 0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty is inf"),
        ({"repetition_penalty": "2"}, "repetition_penalty is '2'"),
    ],
)
def test_a_wrong_min_p_or_penalty_is_named(more, said):
    with pytest.raises(InputError, match=said):
        sampler(1.0, None, None, 0, **more)


def test_a_logit_that_is_not_finite_ends_generation():
    with pytest.raises(ArithmeticRangeError, match="a logit is inf, expected finite ones"):
        finite_logits(np.array([0.0, np.inf]))
    assert finite_logits(np.array([0.0])).tolist() == [0.0]


def test_draws_follow_the_probabilities():
    """Of 5,000 draws; a count is further than 5 standard deviations once in 1.7e6."""
    p = np.array([0.6, 0.3, 0.1])
    for temperature in (1.0, 0.5, 2.0):
        scaled = p ** (1 / temperature)
        scaled /= scaled.sum()
        choose, n = sampler(temperature, None, None, 1), 5_000
        counts = Counter(choose(np.log(p)) for _ in range(n))
        for token, q in enumerate(scaled):
            assert abs(counts[token] - n * q) <= 5 * math.sqrt(n * q * (1 - q))


@pytest.mark.filterwarnings("error")
def test_extreme_logits_and_temperatures_are_sampled_without_a_warning():
    logits = np.array([3e38, -3e38, 0.0, -np.inf], dtype=np.float32)
    for temperature in (1e-300, 1e-3, 1.0, 1e300, sys.float_info.max):
        assert sampler(temperature, None, None, 0)(logits) in (0, 1, 2)
    assert sampler(1e-300, None, None, 0)(np.array([1.0, 2.0, 2.0])) in (1, 2)
    assert sampler(0, None, None, None)(np.array([2.0, 3.0, 3.0])) == 1  # the first of equals
    assert sampler(5.0, 1, None, 0)(np.array([2.0, 3.0, 3.0])) == 1


# Wrong options


WRONG_OPTIONS = [
    ({"temperature": -1}, "temperature is -1"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"temperature": math.inf}, "temperature is inf"),
    ({"temperature": 10**400}, "temperature is 1000"),
    ({"temperature": "1"}, "temperature is '1'"),
    ({"temperature": None}, "temperature is None"),
    ({"top_k": 0}, "top_k is 0, expected a whole number from 1 up"),
    ({"temperature": 1.0, "top_p": "0.5"}, "top_p is '0.5', expected a number above 0"),
    ({"temperature": 1.0, "top_p": True}, "top_p is True, expected a number above 0"),
    ({"top_k": 1.5}, "top_k is 1.5"),
    ({"top_k": True}, "top_k is True"),
    ({"top_p": 0}, "top_p is 0, expected a number above 0 and at most 1"),
    ({"top_p": 1.1}, "top_p is 1.1"),
    ({"top_p": math.nan}, "top_p is nan"),
    ({"top_k": 5}, "temperature 0 takes the likeliest token: give a temperature above 0"),
    ({"top_p": 0.5}, "top_k, top_p and min_p are of draws"),
    ({"seed": -1}, "seed is -1, expected a whole number from 0 up"),
    ({"seed": 1.0}, "seed is 1.0"),
    ({"max_new_tokens": -1}, "max_new_tokens is -1, expected a whole number from 0 up"),
    ({"max_new_tokens": 2.0}, "max_new_tokens is 2.0"),
    ({"cache": "half"}, "cache policy 'half' is unknown"),
    ({"stop": 5}, "stop is 5, expected token ids"),
    ({"stop": [1.5]}, "stop is [1.5], expected token ids"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_wrong_generation_options_are_named_at_once(options, message):
    with pytest.raises(MinikvError) as caught:
        EXACT.generate(TEXT, **options)
    assert message in str(caught.value)

"""A mistake of positions does what it says, and only from the first row that is dropped."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from experiments.toys import texts, tiny

from minikv.caches import Evicting, evicting, make_cache
from minikv.experiments.faults import AtKeptRows

PROMPT = 20
# Policies that keep text positions; StreamingLLM is one of them if it does not turn its keys again.
SETTINGS = [(name, {"reposition": False} if name == "streaming_llm" else {}) for name in evicting()]


def decoded(model, cache, ids, new=(5, 9, 2)) -> np.ndarray:
    """Logits after a prompt and after each of some tokens."""
    model.forward([ids], [cache])
    return np.concatenate([model.forward([[token]], [cache]) for token in new])


def both(name, parameters, budget) -> tuple[np.ndarray, np.ndarray]:
    """A policy without and with the mistake."""
    model = tiny()
    (ids,) = texts(1, PROMPT).values()
    right = make_cache(name, model.weights, budget=budget, **parameters)
    wrong = AtKeptRows(make_cache(name, model.weights, budget=budget, **parameters))
    return decoded(model, right, ids), decoded(model, wrong, ids)


@pytest.mark.parametrize(("name", "parameters"), SETTINGS)
def test_the_mistake_shows_when_rows_were_dropped_and_never_before(name, parameters):
    assert_same_bits(*both(name, parameters, PROMPT + 3))
    right, wrong = both(name, parameters, 8)
    assert not any(same_bits(*rows) for rows in zip(right, wrong, strict=True))


def test_it_is_no_mistake_for_a_policy_that_turns_its_keys_again():
    assert_same_bits(*both("streaming_llm", {}, 8))


def test_a_new_token_stands_at_the_number_of_kept_rows_and_sees_all_of_them():
    model = tiny()
    cache = make_cache("window", model.weights, budget=8)
    assert isinstance(cache, Evicting)
    wrong = AtKeptRows(cache)
    model.forward([list(range(PROMPT))], [wrong])
    assert wrong.begin(np.array([3]))[1].tolist() == [8]
    patterns = []

    def look(name, value):
        patterns.append(value) if name == "blocks.0.attn.hook_pattern" else None
        return value

    model.forward([[3]], [wrong], hook=look)
    assert patterns[0].shape[-1] == 9
    assert (patterns[0] > 0).all()


def test_a_copy_goes_its_own_way():
    model = tiny()
    (ids,) = texts(1, PROMPT).values()
    wrong = AtKeptRows(make_cache("h2o", model.weights, budget=8))
    model.forward([ids], [wrong])
    copy = wrong.fork()
    before = model.forward([[4]], [wrong.fork()])
    model.forward([[1]], [wrong])
    assert_same_bits(model.forward([[4]], [copy]), before)
    assert (wrong.seen, wrong.nbytes, copy.watches) == (PROMPT + 1, copy.nbytes, True)

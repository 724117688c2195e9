"""Truncated caches keep as many directions as they say, and nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits
from experiments.toys import tiny

from minikv.caches import POLICIES, Full
from minikv.decoder import forward
from minikv.errors import CacheError
from minikv.experiments.compare import compare
from minikv.experiments.low_rank import BASES, Truncated

IDS = list(range(1, 12))


def fed(cache, ids=IDS):
    """Logits of a text, token by token, through a cache."""
    return np.concatenate([forward(cache.weights, [[token]], [cache]) for token in ids])


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_what_is_kept_has_the_rank(basis, rank):
    model = tiny("float32")
    cache = Truncated(model.weights, rank, basis)
    forward(model.weights, [IDS], [cache])
    for name, rows in cache.state()[0].items():
        if basis == "weights" and name.startswith("k"):
            continue  # keys are turned after their projection, each by its own position
        for head in range(rows.shape[1]):
            assert np.linalg.matrix_rank(rows[:, head]) == rank


def test_the_directions_of_a_text_lose_least_of_it():
    model = tiny("float32")
    lost = []
    for basis in BASES:
        full = Full(model.weights)
        cut = Truncated(model.weights, 2, basis)
        for cache in (full, cut):
            forward(model.weights, [IDS], [cache])
        name = "v.0"  # of layer 0, whose stream both have
        lost.append(float(np.linalg.norm(full.state()[0][name] - cut.state()[0][name])))
    assert lost[0] < lost[1]


def test_a_fork_keeps_the_directions():
    model = tiny("float32")
    cache = Truncated(model.weights, 2)
    forward(model.weights, [IDS], [cache])
    twin = cache.fork()
    assert_same_bits(fed(twin, [5, 6, 7]), fed(cache, [5, 6, 7]))
    anew = Truncated(model.weights, 2)
    fed(anew, IDS[:1])  # directions of one token
    forward(model.weights, [IDS[1:]], [anew])
    assert not np.array_equal(fed(anew, [5, 6, 7]), fed(cache.fork(), [5, 6, 7]))


def test_rounded_rows_are_numbers_of_bfloat16():
    model = tiny("float32")
    for rounded in (True, False):
        cache = Truncated(model.weights, 6, rounded=rounded)
        forward(model.weights, [IDS], [cache])
        low = np.concatenate([rows.ravel() for rows in cache.state()[0].values()])
        assert (low.view(np.uint32) & 0xFFFF != 0).any() != rounded


def test_compare_runs_it_and_a_low_rank_shows():
    model = tiny("float32")
    makers = {"cut": lambda weights, rank: Truncated(weights, rank)}
    whole, cut = compare(model, {"text": IDS}, [6, 1], 4, makers)
    assert whole["kl_mean"] < cut["kl_mean"]
    assert cut["kl_mean"] > 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rank": 7}, "rank is 7, expected a whole number from 1 to 6"),
        ({"basis": "x"}, "choose text"),
    ],
)
def test_what_it_cannot_be_is_refused(given, told):
    with pytest.raises(CacheError, match=told):
        Truncated(tiny("float32").weights, **({"rank": 2} | given))


def test_it_is_no_policy_of_the_library():
    assert Truncated.policy not in POLICIES

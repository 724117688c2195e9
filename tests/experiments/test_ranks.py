"""Effective ranks of matrices whose singular values are known, and equation 22 with controls."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from experiments.toys import tiny
from hypothesis import given
from hypothesis import strategies as st

from minikv.errors import InputError
from minikv.experiments.ranks import Head, Reading, effective_rank, heads, truncation, turned

UNIT = 2.0**-53


def planted(sigma: list[int], norm: list[float] | None = None) -> Head:
    """A head whose score matrix has these singular values, its rows and columns shuffled."""
    width = len(sigma)
    hidden = width + 3
    rng = np.random.default_rng(0)
    query = np.zeros((width, hidden))
    key = np.zeros((width, hidden))
    places = rng.permutation(hidden)[:width]
    others = rng.permutation(hidden)[:width]
    for row, value in enumerate(sigma):
        query[row, places[row]] = value
        key[row, others[row]] = -1 if row % 2 else 1
    layer = tiny("float64", hidden_size=hidden, head_dim=2 * width).layers[0]
    weight = np.ones(hidden)
    if norm is not None:
        weight[places] = norm
    return Head(replace(layer, input_layernorm=weight), 0, query, key)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.sampled_from([2, 4]))
def test_the_effective_rank_is_the_first_that_reaches_the_share(sigma, power):
    energies = sorted((value**power for value in sigma), reverse=True)
    rank = effective_rank(np.array(sigma, dtype=float), power, share=0.875)
    share = Fraction(7, 8) * sum(energies)
    assert sum(energies[:rank]) >= share > sum(energies[: rank - 1])


@pytest.mark.parametrize(
    ("reading", "rank"),
    [
        (Reading("sum of squares 16 + 16 + 4 + 1 + 1: nine tenths are 34.2"), 3),
        (Reading("fourth powers 256 + 256 + 16 + 1 + 1: 477", power=4), 2),
        (Reading("query's columns times 1, 4, 1, 1, 1: 256 of 278", normed="q"), 1),
    ],
)
def test_a_reading_takes_the_power_and_the_norm_that_it_names(reading, rank):
    head = planted([4, 4, 2, 1, 1], norm=[1, 4, 1, 1, 1])
    assert reading.rank(head) == rank


def test_the_product_of_stored_matrices_is_another_matrix():
    head = planted([3, 3, 3, 3])
    shared = replace(head, key=head.query)  # q q^T of orthogonal rows has sigma^2, as q^T q has
    parallel = replace(head, query=np.ones((4, 7)), key=np.eye(4, 7))
    assert Reading("", stored=True).rank(shared) == Reading("").rank(shared) == 4
    assert Reading("", stored=True).rank(parallel) == Reading("").rank(parallel) == 1
    apart = replace(
        head, query=np.eye(4, 7), key=np.diag([1.0, 0, 0, 0]) @ np.eye(4, 7) + np.eye(4, 7, 3)
    )
    assert Reading("", stored=True).rank(apart) != Reading("").rank(apart)


def test_every_query_head_meets_the_key_head_of_its_group():
    model = tiny("float32")
    found = list(heads(model))
    config = model.config
    assert len(found) == config.num_hidden_layers * config.num_attention_heads
    for head in found:
        layer = model.layers[head.layer.index]
        group = head.index // (config.num_attention_heads // config.num_key_value_heads)
        rows = slice(group * config.head_dim, (group + 1) * config.head_dim)
        assert np.array_equal(head.key, layer.k_proj[rows])
        own = slice(head.index * config.head_dim, (head.index + 1) * config.head_dim)
        assert np.array_equal(head.query, layer.q_proj[own])


def test_a_turned_matrix_projects_as_the_projection_is_turned():
    model = tiny("float64")
    head = next(heads(model))
    x = np.random.default_rng(1).standard_normal(model.config.hidden_size)
    plain = head.query @ x
    expected = head.layer.turned(plain[None, None, :], np.array([5]))[0, 0]
    got = turned(head.query, head.layer, 5) @ x
    sums = abs(head.query) @ abs(x)
    pair = np.roll(sums, len(sums) // 2)  # the other half of each turned pair
    terms = len(x) + 3  # of a product, a rotation's two products and its sum
    bound = terms * UNIT / (1 - terms * UNIT) * (sums + pair)
    assert (abs(got - expected) <= 2 * bound).all()
    assert (abs(got - plain) > 2 * bound).any()  # position 5 is not position 0


def test_matrices_of_another_form_are_refused():
    with pytest.raises(InputError, match="float32 or float64"):
        next(heads(tiny("exact")))


@given(st.integers(0, 20), st.integers(1, 4))
def test_equation_22_holds_is_attained_and_is_false_with_the_next_singular_value(seed, rank):
    head = next(heads(tiny("float64", seed=seed)))
    rows = np.random.default_rng(seed).standard_normal((5, 24)) * 10.0 ** (seed - 10)
    assert truncation(head, rows, rows, rank).error <= 1
    left = head.factors.left.T[rank : rank + 1]
    right = head.factors.right.T[rank : rank + 1]
    attained = truncation(head, left, right, rank)
    assert 1 - 1e-9 < attained.error <= 1
    assert attained.rounding < 1e-9  # so that what makes 1 of it is not the rounding's share
    assert attained.control > 1


def test_equation_22_notices_singular_values_that_are_too_small():
    head = next(heads(tiny("float64")))
    factors = head.factors
    halved = np.where(np.arange(6) == 2, factors.sigma / 2, factors.sigma)
    wrong = replace(head)
    wrong.__dict__["factors"] = replace(factors, sigma=halved)
    assert wrong.left_over > 1000 * head.left_over  # what is missing is measured
    wrong.__dict__["left_over"] = 0.0  # as of a program that trusted its decomposition
    assert truncation(wrong, factors.left.T[2:3], factors.right.T[2:3], 2).error > 1


@pytest.mark.parametrize("rank", [0, 5, 6])
def test_a_rank_without_two_more_singular_values_is_refused(rank):
    head = next(heads(tiny("float64")))
    rows = np.ones((1, 24))
    with pytest.raises(InputError, match="expected 1 to 4"):
        truncation(head, rows, rows, rank)

"""Operands of single operations, for T6 and T7: ordinary numbers with awkward ones among them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

AWKWARD = [0.0, -0.0, 1e-45, -1e-40, 2.0**-126, 1e-30, -1e-30, 1e30, -1e30, 1.0, -1.0, 1 + 2.0**-23]


@dataclasses.dataclass(frozen=True)
class Operands:
    """One drawn problem; what an operation does not need, it ignores."""

    x: np.ndarray  # (T, K)
    w: np.ndarray  # (N, K)
    q: np.ndarray  # (T, H, d)
    k: np.ndarray  # (S, G, d)
    v: np.ndarray  # (S, G, d)
    visible: np.ndarray  # (T, S) bool; every query sees a key


@st.composite
def arrays(draw: st.DrawFn, *shape: int) -> np.ndarray:
    """float32: normal or heavy-tailed from a seed, then drawn edits along the first axis."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    array = rng.normal(size=shape)
    if draw(st.booleans()):
        array = array * np.exp(rng.normal(size=shape) * draw(st.sampled_from([1.0, 4.0])))
    array = (array * draw(st.sampled_from([1.0, 1.0, 1e-25]))).astype(np.float32)
    flat = array.reshape(-1)
    places = st.tuples(st.integers(0, flat.size - 1), st.sampled_from(AWKWARD))
    for at, value in draw(st.lists(places, max_size=6)):
        flat[at] = value
    if draw(st.booleans()):  # one outlier channel, as trained models have
        array[..., draw(st.integers(0, shape[-1] - 1))] = 1e4
    if shape[0] > 1 and draw(st.booleans()):
        array[0] = array[-1]  # equal rows
    if draw(st.booleans()):
        array[draw(st.integers(0, shape[0] - 1))] = draw(st.sampled_from([0.0, -0.0, 1e-45, 0.1]))
    return array


@st.composite
def operands(draw: st.DrawFn, longest: int = 48) -> Operands:
    """Small shapes of every kind: one row or several, MHA, GQA and MQA, any mask."""
    tokens, length = draw(st.integers(1, 5)), draw(st.integers(1, longest))
    width, outputs = draw(st.integers(1, longest)), draw(st.integers(1, 4))
    groups, shared = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    head_dim = draw(st.sampled_from([2, 6, 16]))
    w = np.clip(draw(arrays(outputs, width)), -1e4, 1e4)  # 48 * 1e30 * 1e4 is still a float32
    visible = np.random.default_rng(draw(st.integers(0, 99))).random((tokens, length)) < 0.7
    visible[:, draw(st.integers(0, length - 1))] = True
    return Operands(
        draw(arrays(tokens, width)),
        w,
        draw(arrays(tokens, groups * shared, head_dim)),
        draw(arrays(length, groups, head_dim)),
        draw(arrays(length, groups, head_dim)),
        visible,
    )


@st.composite
def cancelling(draw: st.DrawFn) -> Operands:
    """Positive terms of many sizes, then the same ones negative: the true sums are 0.

    Rounding anywhere on the way shows, where it would vanish in the last rounding to float32
    otherwise. A BLAS adds up so wide a product in another order for one row than for three.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    x, w = rng.random((3, 288)) ** 4, rng.random((32, 288))
    q, k, v = rng.normal(size=(3, 2, 6)), rng.normal(size=(40, 1, 6)), rng.random((40, 1, 6)) ** 4
    x, w = np.concatenate([x, -x], axis=1), np.concatenate([w, w], axis=1)
    k, v = np.concatenate([k, k]), np.concatenate([v, -v])
    numbers = (array.astype(np.float32) for array in (x, w, q, k, v))
    return Operands(*numbers, np.ones((3, 80), bool))


def linear(arithmetic: Any, o: Operands) -> Any:
    return arithmetic.linear(o.x, arithmetic.weight(o.w, "w"))


def mean_square(arithmetic: Any, o: Operands) -> Any:
    return arithmetic.mean_square(o.x)


def settle(arithmetic: Any, o: Operands) -> Any:
    return arithmetic.settle(o.q)


def pattern(arithmetic: Any, o: Operands) -> Any:
    """``(T, H, S)``: the attention weights."""
    found = arithmetic.scores(o.q, arithmetic.settle(o.k), 1 / math.sqrt(o.q.shape[-1]))
    # Added, since np.where would take off the disguise that test_t07_order puts on arrays.
    found = found + np.where(o.visible, 0.0, -math.inf).astype(found.dtype)
    return np.transpose(arithmetic.softmax(found), (1, 0, 2))


def attention(arithmetic: Any, o: Operands) -> Any:
    """``(T, H, d)``"""
    weights = np.transpose(pattern(arithmetic, o), (1, 0, 2))
    return arithmetic.weighted_sum(weights, arithmetic.settle(o.v))


OPERATIONS = {f.__name__: f for f in (linear, mean_square, settle, pattern, attention)}

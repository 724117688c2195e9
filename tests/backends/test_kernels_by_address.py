"""Kernels read by address: what does not lie there is refused before."""

from __future__ import annotations

import numpy as np
import pytest
from bits import assert_same_bits

pytest.importorskip("numba", reason="needs the extra `numba`, not installed here")
from minikv.arithmetic import Arithmetic, Sight
from minikv.arithmetic.exact import LONGEST
from minikv.backends import get_backend
from minikv.errors import ArithmeticRangeError, InputError

pytestmark = pytest.mark.backends
BOTH = [get_backend("numba", name, 512) for name in ("float32", "exact")]
SIGHT = Sight(np.array([4]), np.arange(5))
Q = np.ones((1, 4, 8), np.float32)
K = np.ones((5, 2, 8), np.float32)


@pytest.mark.parametrize("arithmetic", BOTH)
@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        (Q, K, K[:4]),
        (Q, K[:4], K[:4]),
        (Q[:, :, :6], K, K),
        (Q, K[:, :1], K),
        (Q[:, :3], K, K),
    ],
)
def test_rows_that_do_not_fit_their_positions_are_refused(arithmetic, q, k, v):
    with pytest.raises(InputError, match=r"expected 5 tokens or more of each"):
        arithmetic.attention(q, k, v, SIGHT, 0.5)
    assert arithmetic.attention(Q, K, K, SIGHT, 0.5).shape == Q.shape


def test_a_query_that_sees_no_key_is_left_to_the_parts(monkeypatch):
    arithmetic = BOTH[0]
    left = []
    monkeypatch.setattr(Arithmetic, "attention", lambda *arguments: left.append(arguments))
    arithmetic.attention(Q, K, K, Sight(np.array([9]), np.arange(5), 2), 0.5)
    assert len(left) == 1
    arithmetic.attention(Q, K, K, Sight(np.array([5]), np.arange(5), 2), 0.5)
    assert len(left) == 1


def test_more_weights_than_can_be_counted_are_refused():
    arithmetic = BOTH[0]
    told = rf"^{LONGEST + 1} tokens to attend to, expected at most {LONGEST}$"
    with pytest.raises(ArithmeticRangeError, match=told):
        arithmetic.softmax(np.zeros((1, 1, LONGEST + 1), np.float32))
    positions = np.arange(LONGEST + 1)
    keys = np.zeros((LONGEST + 1, 1, 1), np.float32)
    with pytest.raises(ArithmeticRangeError, match=told):
        arithmetic.attention(
            np.zeros((1, 1, 1), np.float32), keys, keys, Sight(positions[-1:], positions), 0.5
        )
    weights = arithmetic.softmax(np.zeros((1, 1, LONGEST), np.float32))
    assert_same_bits(weights, np.full((1, 1, LONGEST), 2.0**-20, np.float32))


@pytest.mark.parametrize("arithmetic", BOTH)
@pytest.mark.parametrize("share", [6, 7, 9])
@pytest.mark.parametrize("head_dim", [33, 80])
@pytest.mark.parametrize("tokens", [1, 5])
def test_many_heads_that_fill_no_panel_have_the_bits_of_their_parts(
    arithmetic, share, head_dim, tokens
):
    rng = np.random.default_rng(share)
    q = rng.standard_normal((tokens, 2 * share, head_dim)).astype(np.float32)
    k, v = arithmetic.settle(rng.standard_normal((2, 300, 2, head_dim)).astype(np.float32))
    sight = Sight(np.arange(300 - tokens, 300), np.arange(300), 280)
    expected = Arithmetic.attention(arithmetic, q, k, v, sight, 0.25)
    assert_same_bits(arithmetic.attention(q, k, v, sight, 0.25), expected)

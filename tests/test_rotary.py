"""The table of angles: who shares it, and how far it turns."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv import RopeScaling
from minikv.errors import ArithmeticRangeError
from minikv.rotary import Rotary

EXACT = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()


def test_threads_that_share_a_model_get_the_angles_that_they_asked_for():
    """A table that one thread makes longer must not change under another."""
    rotary = Rotary(EXACT.config, EXACT.arithmetic)
    expected = rotary(np.arange(4000))
    calls = [np.array([1000]), np.arange(1001), np.array([100]), np.arange(4000)] * 2
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            for _ in range(200):
                fresh = Rotary(EXACT.config, EXACT.arithmetic)
                for positions, got in zip(calls, pool.map(fresh, calls), strict=True):
                    for table, whole in zip(got, expected, strict=True):
                        assert_same_bits(table, whole[positions])
    finally:
        sys.setswitchinterval(interval)


def test_a_row_of_the_table_holds_each_cosine_twice_and_each_sine_with_both_signs():
    cos, sin = Rotary(EXACT.config, EXACT.arithmetic)(np.arange(9))
    assert cos.shape == sin.shape == (9, 1, 6)
    assert_same_bits(cos[..., :3], cos[..., 3:])
    assert_same_bits(sin[..., :3], -sin[..., 3:])
    assert (cos[0] == 1).all()
    assert (sin[1, 0, 3:] > 0).all()  # angles of at most 1 radian


def test_a_table_that_grew_is_the_one_that_is_made_at_once():
    """Past each doubling, asked for one position or for several."""
    whole = Rotary(EXACT.config, EXACT.arithmetic)(np.arange(2050))
    for count in (1, 2, 3):
        grown = Rotary(EXACT.config, EXACT.arithmetic)
        for last in (0, 1, 2, 3, 4, 7, 8, 255, 256, 257, 511, 512, 1023, 1024, 1025, 2048, 2049):
            positions = np.arange(max(0, last + 1 - count), last + 1)
            for table, expected in zip(grown(positions), whole, strict=True):
                assert_same_bits(table, expected[positions])


def test_an_angle_beyond_the_range_of_sine_and_cosine_is_refused():
    """A frequency of theta**(-2i/d), or one divided by a factor, can turn too fast."""
    for stretched in ({"rope_theta": 1e-9}, {"rope_scaling": RopeScaling(1e-9)}):
        model = minikv.random_model(minikv.tiny_config(**stretched), 0)
        with pytest.raises(ArithmeticRangeError, match=r"turns by .* radians, expected at most"):
            model.logits(TEXT)

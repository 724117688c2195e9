"""The table of angles: who shares it, and how far it turns."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv import RopeScaling
from minikv.config import FULL, SLIDING
from minikv.errors import ArithmeticRangeError
from minikv.rotary import Rotary, rope_frequencies

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


def close(got: np.ndarray, expected: list[float]) -> bool:
    """Whether float32 frequencies are these, rounded from powers good to a few last places."""
    return got.dtype == np.float32 and np.allclose(got, expected, rtol=2.0**-23, atol=0)


def test_frequencies_are_powers_of_the_base_stretched_as_configured():
    powers = [500.0 ** (-i / 4) for i in range(4)]
    base = {"head_dim": 8, "rope_theta": 500.0}
    plain = minikv.tiny_config(**base)
    assert close(rope_frequencies(plain), powers)
    linear = minikv.tiny_config(**base, rope_scaling=RopeScaling(4.0))
    assert close(rope_frequencies(linear), [power / 4 for power in powers])

    def stretched(power: float) -> float:
        wavelength = 2 * math.pi / power
        if wavelength < 64 / 8:  # high_freq_factor: kept
            return power
        if wavelength > 64 / 2:  # low_freq_factor: stretched
            return power / 4
        smooth = (64 / wavelength - 2) / (8 - 2)
        return (1 - smooth) * power / 4 + smooth * power

    llama3 = minikv.tiny_config(**base, rope_scaling=RopeScaling(4.0, 2.0, 8.0, 64))
    expected = [stretched(power) for power in powers]
    assert close(rope_frequencies(llama3), expected)
    kept, between, *rest = (got / power for got, power in zip(expected, powers, strict=True))
    assert kept == 1 > between > 1 / 4 == rest[0] == rest[1]  # all three kinds


def test_sliding_layers_with_a_base_of_their_own_are_not_stretched():
    config = minikv.tiny_config(
        model_type="gemma3_text",
        head_dim=8,
        rope_theta=500.0,
        rope_local_base_freq=20.0,
        rope_scaling=RopeScaling(4.0),
        sliding_window=4,
        layer_types=(SLIDING, FULL),
    )
    assert close(rope_frequencies(config, local=True), [20.0 ** (-i / 4) for i in range(4)])
    assert close(rope_frequencies(config), [500.0 ** (-i / 4) / 4 for i in range(4)])
    alike = minikv.tiny_config(head_dim=8, rope_theta=500.0, rope_scaling=RopeScaling(4.0))
    assert_same_bits(rope_frequencies(alike, local=True), rope_frequencies(alike))


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


def test_a_table_is_made_anew_once_for_each_doubling(monkeypatch):
    """So that a thousand tokens fed one by one take ten more tables, and not a thousand."""
    made = []
    cos = type(EXACT.arithmetic).cos

    def counted(self, angle):
        made.append(len(angle))
        return cos(self, angle)

    monkeypatch.setattr(type(EXACT.arithmetic), "cos", counted)
    rotary = Rotary(EXACT.config, EXACT.arithmetic)
    for position in range(1000):
        rotary(np.array([position]))
    assert made == [1 << bits for bits in range(11)]


def test_an_angle_beyond_the_range_of_sine_and_cosine_is_refused():
    """A frequency of theta**(-2i/d), or one divided by a factor, can turn too fast."""
    for stretched in ({"rope_theta": 1e-9}, {"rope_scaling": RopeScaling(1e-9)}):
        model = minikv.random_model(minikv.tiny_config(**stretched), 0)
        with pytest.raises(ArithmeticRangeError, match=r"turns by .* radians, expected at most"):
            model.logits(TEXT)


def test_an_angle_of_2_to_the_20_radians_is_the_largest():
    """Of a base of 2**-40 the second of two pairs turns by 2**20 radians a position."""
    config = minikv.tiny_config(head_dim=4, rope_theta=2.0**-40)
    rotary = Rotary(config, EXACT.arithmetic)
    assert rotary(np.array([1]))[0].shape == (1, 1, 4)
    with pytest.raises(ArithmeticRangeError, match="position 3 turns by"):
        rotary(np.array([2]))
    faster = minikv.tiny_config(head_dim=4, rope_theta=2.0**-40 * (1 - 2.0**-20))
    with pytest.raises(ArithmeticRangeError, match="position 1 turns by"):
        Rotary(faster, EXACT.arithmetic)(np.array([1]))

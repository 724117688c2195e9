"""The controls in float32 find a difference also where BLAS gives a row the same bits in any call.

Debian's reference BLAS does. Here its place is taken by a float32 that sums every row alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import minikv
from minikv.arithmetic import Float32
from minikv.config import SLIDING
from minikv.verify import THEOREMS, backwards, theorem
from minikv.verify.backwards import KEPT_ROWS, blas_keeps_rows
from minikv.verify.cases import Seeded, draw_case, draw_config, model_of, random_case
from minikv.verify.theorems import t11_receptive_field


class RowByRow(Float32):
    """Every sum from its first term to its last, whatever else is in the call."""

    def linear(self, x, weight):
        return first_to_last(x[:, None, :] * weight[None])

    def scores(self, q, k, scale):
        k = k.repeat(q.shape[1] // k.shape[1], axis=1)  # (S, H, d)
        return first_to_last((q * scale).swapaxes(0, 1)[:, :, None] * k.swapaxes(0, 1)[:, None])

    def softmax(self, scores):
        pattern = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return pattern / first_to_last(pattern)[..., None]

    def weighted_sum(self, pattern, v):
        v = v.repeat(len(pattern) // v.shape[1], axis=1)  # (S, H, d)
        terms = pattern[:, :, None] * v.transpose(1, 2, 0)[:, None]  # (H, T, d, S)
        return first_to_last(terms).swapaxes(0, 1)


def first_to_last(terms):
    return np.cumsum(terms, axis=-1, dtype=np.float32)[..., -1]


ROW_BY_ROW = RowByRow()


@pytest.fixture
def row_invariant(monkeypatch):
    """float32 means `RowByRow`, and the probe of BLAS says what it would say there."""

    def made(source, seed, scale, arithmetic, backend):
        if arithmetic == "float32":
            arithmetic = ROW_BY_ROW
        return model_of(source, seed, scale, arithmetic, backend)

    monkeypatch.setattr("minikv.verify.cases.model_of", made)
    monkeypatch.setattr(theorem, "blas_keeps_rows", lambda: True)


@pytest.mark.parametrize("name", ["T1", "T3", "T6"])
def test_a_control_finds_a_difference_where_blas_keeps_rows(name, row_invariant):
    found = [THEOREMS[name].control(random_case(seed)) for seed in range(12)]
    told = [text for text in found if text]
    assert told
    assert all(text.endswith(f"({KEPT_ROWS})") for text in told)


@pytest.mark.parametrize("name", ["T1", "T3", "T6"])
def test_without_that_it_finds_none(name, row_invariant, monkeypatch):
    """The control of the control: such a BLAS alone makes these theorems look vacuous."""
    monkeypatch.setattr(theorem, "blas_keeps_rows", lambda: False)
    assert not any(THEOREMS[name].control(random_case(seed)) for seed in range(12))


def test_where_no_layer_adds_to_the_stream_the_control_of_t11_finds_nothing(monkeypatch):
    """A row that was not replaced then is what it was, however near; one that was is another's."""

    def adding_nothing(source, seed, scale, arithmetic, backend):
        tensors = minikv.random_tensors(source, seed)
        for name, tensor in tensors.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                tensor[:] = 0
        return minikv.Model(minikv.build(source, tensors, arithmetic))

    for seed in range(3):
        draws = Seeded(seed)
        case = draw_case(draws, draw_config(draws, windowed=True), min_tokens=8, scales=(1.0,))
        assert THEOREMS["T11"].control(case)
        with monkeypatch.context() as patch:
            patch.setattr("minikv.verify.cases.model_of", adding_nothing)
            assert not THEOREMS["T11"].control(replace(case))


def test_the_control_of_t11_wants_a_difference_in_every_layer(monkeypatch):
    draws = Seeded(0)
    config = replace(
        draw_config(draws, windowed=True),
        num_hidden_layers=2,
        layer_types=(SLIDING, SLIDING),
        sliding_window=2,
    )
    case = draw_case(draws, config, min_tokens=8, scales=(1.0,))
    for layers in ([True, True], [True, False], [False, True]):
        answers = iter(layers)
        monkeypatch.setattr(t11_receptive_field, "differ", lambda *_, told=answers: next(told))
        assert bool(THEOREMS["T11"].control(case)) == all(layers)
        assert not list(answers)


def test_the_probe_tells_the_two_kinds_of_blas_apart(monkeypatch):
    class Rows(np.ndarray):
        def __matmul__(self, other):
            rows = np.asarray(self)
            return np.concatenate([rows[row : row + 1] @ other for row in range(len(rows))])

    probe = blas_keeps_rows.__wrapped__
    whole = np.random.default_rng

    class Generator:
        def __init__(self, seed):
            self.drawn = whole(seed)

        def standard_normal(self, shape, dtype):
            return self.drawn.standard_normal(shape, dtype=dtype).view(Rows)

    monkeypatch.setattr(backwards.np.random, "default_rng", Generator)
    assert probe()

"""T6, row locality, operation by operation: a row's bits do not depend on the rows beside it.

On whole models the theorem is checked in ``test_theorems.py``. The controls at the end show that
the property is not empty: ordinary float32 breaks it, and so does `Exact` with too fine a grid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from operands import (
    AWKWARD,
    OPERATIONS,
    Operands,
    arrays,
    attention,
    cancelling,
    linear,
    operands,
)

from minikv.arithmetic import Float32, NumpyExact
from minikv.verify import same_bits

EXACT = NumpyExact(context=256)
BUDGET = settings(settings.default, max_examples=500, phases=[Phase.generate])


class FourBitsTooMany(NumpyExact):
    significand = 57


def pick(o: Operands, rows: list[int]) -> Operands:
    """The same problem for some of its rows, in any order, repeated or not."""
    return replace(o, x=o.x[rows], q=o.q[rows], visible=o.visible[rows])


def row_lists(o: Operands) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(o.x) - 1), min_size=1, max_size=9)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(o=operands(), data=st.data())
def test_any_rows_in_any_order_are_the_rows_of_the_whole(operation, o, data):
    rows = data.draw(row_lists(o))
    whole = OPERATIONS[operation](EXACT, o)
    assert same_bits(OPERATIONS[operation](EXACT, pick(o, rows)), whole[rows])


@pytest.mark.parametrize("operation", OPERATIONS)
@given(o=operands(), data=st.data())
def test_rows_beside_do_not_matter_whatever_they_hold(operation, o, data):
    others = pick(o, [0, 0])
    x, q = data.draw(arrays(2, o.x.shape[1])), data.draw(arrays(2, *o.q.shape[1:]))
    more = replace(
        o,
        x=np.concatenate([x, o.x]),
        q=np.concatenate([q, o.q]),
        visible=np.concatenate([others.visible, o.visible]),
    )
    assert same_bits(OPERATIONS[operation](EXACT, more)[2:], OPERATIONS[operation](EXACT, o))


@given(o=operands(), data=st.data())
def test_hidden_keys_do_not_matter_whatever_they_hold(o, data):
    added = data.draw(st.integers(1, 5))
    k, v = (data.draw(arrays(added, *o.k.shape[1:])) for _ in range(2))
    order = np.array(data.draw(st.permutations(range(len(o.k) + added))))
    hidden = np.zeros((len(o.q), added), bool)
    more = replace(
        o,
        k=np.concatenate([o.k, k])[order],
        v=np.concatenate([o.v, v])[order],
        visible=np.concatenate([o.visible, hidden], axis=1)[:, order],
    )
    assert same_bits(attention(EXACT, more), attention(EXACT, o))


@given(
    o=operands(), front=st.integers(0, 9), back=st.integers(0, 9), zero=st.sampled_from([0.0, -0.0])
)
def test_zero_features_do_not_matter(o, front, back, zero):
    def pad(a: np.ndarray) -> np.ndarray:
        return np.pad(a, ((0, 0), (front, back)), constant_values=zero)

    assert same_bits(linear(EXACT, replace(o, x=pad(o.x), w=pad(o.w))), linear(EXACT, o))


def test_the_awkward_values_are_float32():
    assert all(np.isfinite(np.float32(value)) for value in AWKWARD)
    assert all(np.float32(value) != 0 or value == 0 for value in AWKWARD)


# --- controls: what must fail


@pytest.mark.parametrize("arithmetic", [Float32(), FourBitsTooMany(context=256)], ids=["f32", "57"])
def test_without_exact_sums_a_row_depends_on_its_neighbours(arithmetic):
    def differs(o: Operands) -> bool:
        return not same_bits(linear(arithmetic, pick(o, [0])), linear(arithmetic, o)[:1])

    o = find(cancelling(), differs, settings=BUDGET)
    assert same_bits(linear(EXACT, pick(o, [0])), linear(EXACT, o)[:1])


def test_a_scale_from_the_whole_batch_breaks_it():
    class PerBatch(NumpyExact):
        def grid(self, size, row_sum, bits):
            return super().grid(size, float(np.max(row_sum)), bits) + 0.0 * row_sum

    def differs(o: Operands) -> bool:
        return not same_bits(linear(PerBatch(), pick(o, [0])), linear(PerBatch(), o)[:1])

    o = find(operands(), differs, settings=BUDGET)
    assert same_bits(linear(EXACT, pick(o, [0])), linear(EXACT, o)[:1])

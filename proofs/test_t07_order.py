"""T7: the sums of `Exact` have the same bits in any order, and why.

The operations themselves run here, on arrays that take every ``@`` and every sum across elements
out of NumPy's hands and add term by term, in pure Python, in an order drawn by Hypothesis. One more
"order" adds nothing up: it checks the hypothesis of ``rocq/Exactness.v`` on the terms, that their
absolute values add up to at most 2**53 times a power of two that divides them all; for operands
on which that holds, no order on any machine can differ.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import types
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from operands import OPERATIONS, Operands, attention, cancelling, linear, operands

from minikv.arithmetic import Exact, Float32, NumpyExact, exact
from minikv.verify import same_bits

EXACT = NumpyExact(context=256)
BUDGET = settings(settings.default, max_examples=500, phases=[Phase.generate])
SUMMING = [name for name in OPERATIONS if name != "settle"]


class FourBitsTooMany(NumpyExact):
    significand = 57


# --- orders of addition: functions of a list of numbers


def one_by_one(terms: list) -> float:
    total = 0.0 * terms[0]
    for term in terms:
        total = total + term
    return total


def random_tree(terms: list) -> float:
    """Join two random partial sums until one is left; the seed comes from the number of terms."""
    terms, rng = list(terms), random.Random(len(terms))
    while len(terms) > 1:
        i = rng.randrange(len(terms))
        terms[i], terms[-1] = terms[-1], terms[i]
        last = terms.pop()
        j = rng.randrange(len(terms))
        terms[j] = terms[j] + last
    return terms[0]


def in_chunks(terms: list) -> float:
    return one_by_one([one_by_one(terms[i : i + 7]) for i in range(0, len(terms), 7)])


def certified(terms: list) -> float:
    """Not an order: the hypothesis of the theorem, then the true sum."""
    ratios = [Fraction(float(term)) for term in terms]
    common = math.lcm(*(ratio.denominator for ratio in ratios))
    integers = [abs(int(ratio * common)) for ratio in ratios]
    step = math.gcd(*(integer & -integer for integer in integers)) or 1
    assert sum(integers) <= step * 2**53, "some order of addition could round"
    return math.fsum(terms)


ORDERS: dict[str, Callable[[list], float]] = {
    "forwards": one_by_one,
    "backwards": lambda terms: one_by_one(terms[::-1]),
    "smallest first": lambda terms: one_by_one(sorted(terms, key=abs)),
    "largest first": lambda terms: one_by_one(sorted(terms, key=abs, reverse=True)),
    "positive first": lambda terms: one_by_one(sorted(terms, reverse=True)),
    "random tree": random_tree,
    "in chunks": in_chunks,
    "certified": certified,
}
ADDING = [name for name in ORDERS if name != "certified"]


class AnyOrder(np.ndarray):
    """An array whose sums and matrix products are taken by `order`."""

    order: Callable[[list], float] = staticmethod(one_by_one)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(a) if isinstance(a, np.ndarray) else a for a in inputs]
        if ufunc is np.matmul:
            a, b = plain
            result = self._add_up(a[..., :, None, :] * np.swapaxes(b, -1, -2)[..., None, :, :])
        elif ufunc is np.vecdot:
            result = self._add_up(plain[0] * plain[1])
        elif ufunc is np.add and method == "reduce":
            assert options["axis"] in (-1, plain[0].ndim - 1)
            result = self._add_up(plain[0])
            result = result[..., None] if options.get("keepdims") else result
        else:
            if out is not None:
                options["out"] = tuple(np.asarray(a) for a in out)
            result = getattr(ufunc, method)(*plain, **options)
        return out[0] if out is not None else np.asarray(result).view(AnyOrder)

    @classmethod
    def _add_up(cls, terms: np.ndarray) -> np.ndarray:
        result = np.empty(terms.shape[:-1], terms.dtype)
        for index in np.ndindex(result.shape):
            row = terms[index]  # Python's floats are float64; float32 stays what it is
            result[index] = cls.order(row.tolist() if row.dtype == np.float64 else list(row))
        return result


class Certified(NumpyExact):
    """`Exact` with the one kind of sum excepted that may round, the estimates that pick a grid.

    Where rounding could change the grid, the true sum decides, as
    ``tests/arithmetic/test_exact.py`` shows.
    """

    def row_sum(self, size):
        order, AnyOrder.order = AnyOrder.order, staticmethod(one_by_one)
        try:
            return super().row_sum(size)
        finally:
            AnyOrder.order = staticmethod(order)


class CertifiedFourBitsTooMany(Certified):
    significand = 57


def under(order: str, operation: Callable, arithmetic: object, o: Operands) -> np.ndarray:
    """The operation with all its sums in this order."""
    AnyOrder.order = staticmethod(ORDERS[order])
    disguised = {
        f.name: getattr(o, f.name).view(AnyOrder) for f in fields(o) if f.name != "visible"
    }
    return np.asarray(operation(arithmetic, replace(o, **disguised)))


def test_a_disguised_operation_adds_in_the_order_it_is_told():
    """Otherwise every property below would hold of anything."""
    o = find(operands(), lambda o: o.x.shape[1] > 2 and o.k.shape[0] > 2)
    calls: list[int] = []
    ORDERS["spy"] = lambda terms: calls.append(len(terms)) or math.fsum(terms)
    try:
        for operation in OPERATIONS.values():
            calls.clear()
            under("spy", operation, EXACT, o)
            assert bool(calls) == (operation is not OPERATIONS["settle"])
        calls.clear()
        under("spy", OPERATIONS["pattern"], EXACT, o)
        assert o.k.shape[0] in calls  # the softmax's denominator
        under("spy", OPERATIONS["attention"], EXACT, o)
        assert {o.q.shape[2], o.k.shape[0]} <= set(calls)  # q . k, and over tokens
    finally:
        del ORDERS["spy"]


@pytest.mark.parametrize("operation", SUMMING)
@given(o=operands(longest=24), order=st.sampled_from(ADDING))
def test_every_order_gives_the_bits_of_the_blas(operation, order, o):
    function = OPERATIONS[operation]
    expected = function(EXACT, o)
    assert same_bits(under(order, function, EXACT, o), expected)
    assert same_bits(under("certified", function, Certified(context=256), o), expected)


@given(o=operands(), data=st.data())
def test_features_and_keys_may_come_in_any_order(o, data):
    features = data.draw(st.permutations(range(o.x.shape[1])))
    keys = data.draw(st.permutations(range(o.k.shape[0])))
    shuffled = replace(
        o,
        x=o.x[:, features],
        w=o.w[:, features],
        k=o.k[keys],
        v=o.v[keys],
        visible=o.visible[:, keys],
    )
    assert same_bits(linear(EXACT, shuffled), linear(EXACT, o))
    assert same_bits(attention(EXACT, shuffled), attention(EXACT, o))


@given(o=operands(), data=st.data())
def test_a_sum_may_be_split_anywhere(o, data):
    """On a common grid, the parts of a product add up to the bits of the whole."""
    grids: list = []

    class Spy(NumpyExact):
        def grid(self, size, row_sum, bits):
            grids.append(super().grid(size, row_sum, bits))
            return grids[-1]

    spy = Spy(context=256)
    weight = spy.weight(o.w, "w")
    whole = spy.linear(o.x, weight)
    x = exact.round_to(o.x.astype(np.float64), grids[0])
    edges = sorted({0, x.shape[1], *data.draw(st.sets(st.integers(0, x.shape[1]), max_size=4))})
    parts = [x[:, a:b] @ weight.values[:, a:b].T for a, b in itertools.pairwise(edges)]
    data.draw(st.randoms()).shuffle(parts)
    assert same_bits((sum(parts, np.zeros(whole.shape))).astype(np.float32) + 0.0, whole)


def denominators(make: Callable, context: int) -> list[np.ndarray]:
    """The softmax of `context` keys of similar weight, summed by NumPy, first to last and back."""
    scores = np.random.default_rng(context).uniform(math.log(0.7), 0.0, (2, 1, context))
    libraries = [np]
    for step in (1, -1):
        library = types.ModuleType(f"numpy, step {step}")
        library.__dict__.update(np.__dict__)
        library.sum = lambda a, axis, keepdims, step=step: np.add.accumulate(
            a[..., ::step], axis=axis
        )[..., -1:]
        libraries.append(library)
    return [make(context, library).softmax(scores) for library in libraries]


@pytest.mark.parametrize("context", [2**13 + 1, 2**14, 2**17, 2**20])
def test_a_long_contexts_denominator_knows_no_order(context):
    """Above 2**13 tokens the grid is coarser, so that all of them still add up to 2**53 at most."""
    one, *others = denominators(Exact, context)
    assert all(same_bits(other, one) for other in others)


def at_the_change(unseen: int) -> np.ndarray:
    """A weighted sum where the weights add up to a tie at which the grid changes, just above it.

    The weights are 2**-29 and what is left of the largest number below the change, and half a last
    place in two pieces, one of them smaller than what any sum of so many keys would keep.
    """
    below, scale = np.float64(512 / 513), (1 + 2.0**-9) * 2.0**-29
    while below * scale >= 2.0**-29:
        below = np.nextafter(below, 0)
    weights = [below - 2.0**-29, 2.0**-29, 2.0**-54 - 2.0**-94, 2.0**-95, 2.0**-95]
    pattern = np.concatenate([weights, np.zeros(unseen)])[None, None]
    v = np.concatenate([np.eye(5, 6, dtype=np.float32), np.ones((unseen, 6), np.float32)])
    return EXACT.weighted_sum(pattern, v[:, None])


def test_keys_that_are_not_seen_change_no_bit():
    """How many there are depends on the chunks; the finest part of a sum must not know it."""
    alone = at_the_change(0)
    assert all(same_bits(at_the_change(unseen), alone) for unseen in (1, 2, 3, 4, 28, 200, 1000))


# --- controls: what must fail


class CountingKeys(NumpyExact):
    """Its sums are finer where there are fewer numbers."""

    def total(self, size):
        longest = exact.LONGEST
        exact.LONGEST = size.shape[-1]
        try:
            return super().total(size)
        finally:
            exact.LONGEST = longest


def test_sums_that_count_the_keys_are_changed_by_those_not_seen(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "EXACT", CountingKeys(context=256))
    assert not same_bits(at_the_change(4), at_the_change(0))


class OneBitTooMany(Exact):
    significand = 54


@pytest.mark.parametrize("context", [2**14, 2**17, 2**20])
def test_one_bit_more_in_a_long_contexts_denominator_breaks_it(context):
    one, *others = denominators(OneBitTooMany, context)
    assert not any(same_bits(other, one) for other in others)


def two_orders() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(ADDING), min_size=2, max_size=2, unique=True)


@pytest.mark.parametrize("operation", SUMMING)
def test_float32_depends_on_the_order(operation):
    function = OPERATIONS[operation]

    def differs(drawn: tuple[Operands, list[str]]) -> bool:
        with np.errstate(all="ignore"):
            one, other = (under(order, function, Float32(), drawn[0]) for order in drawn[1])
        return bool(np.isfinite(one).all()) and not same_bits(one, other)

    o, orders = find(st.tuples(operands(longest=24), two_orders()), differs, settings=BUDGET)
    assert same_bits(*(under(order, function, EXACT, o) for order in orders))


@pytest.mark.parametrize("operation", ["linear", "attention"])
def test_four_bits_more_than_float64_has_break_it(operation):
    function, broken = OPERATIONS[operation], FourBitsTooMany(context=256)

    def differs(drawn: tuple[Operands, list[str]]) -> bool:
        o = replace(drawn[0], w=drawn[0].w[:2])  # pure Python is slow
        return not same_bits(*(under(order, function, broken, o) for order in drawn[1]))

    o, orders = find(st.tuples(cancelling(), two_orders()), differs, settings=BUDGET)
    assert same_bits(*(under(order, function, EXACT, o) for order in orders))


@pytest.mark.parametrize("operation", ["linear", "attention"])
def test_the_certificate_notices_four_bits_too_many(operation):
    def refused(o: Operands) -> bool:
        try:
            under("certified", OPERATIONS[operation], CertifiedFourBitsTooMany(context=256), o)
        except AssertionError:
            return True
        return False

    assert refused(find(operands(), refused, settings=BUDGET))

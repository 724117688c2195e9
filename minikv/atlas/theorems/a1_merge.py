r"""Attention over parts of the keys, merged in any order and tree, is attention over all of them.

Of some keys keep the largest score $m$, the denominator $s = \sum e^{x_i - m}$ and the weighted sum
$z = \sum e^{x_i - m} v_i$. Two parts merge to $n = \max(m, m')$ and the sums of both, each scaled
by $e^{m - n}$ and $e^{m' - n}$. In the reals this is a commutative monoid, whose neutral element is
no key at all, so that any partition, order and tree ends in $z / s$, which is attention. *Proof.*
$e^{m - n} e^{n - k} = e^{m - k}$, and what a part stands for does not depend on its $m$.

In floats a merge rounds. In bits, under `exact`, holds what follows of T7: keys dealt to any parts,
with one largest score, one denominator and one grid for all parts, have the bits of one pass.
*Check.* Both, on every layer: the first within the rounding of float64, the second bit for bit, on
ranks that reduce in random orders.
*Control.* Without the grid that all parts share, merged in float64 and rounded to float32 once,
heads have other bits.
"""

from __future__ import annotations

import numpy as np

from ...arithmetic import Arithmetic
from ...parallel import Comm, run_threads
from ...parallel.context import over_context
from ...verify.bits import Refuted, assert_same_bits, same_bits
from ...verify.cases import Case
from ...verify.theorem import EXACT_SUMS, Theorem
from ..attending import Attention, attention_of
from ..merging import Part, any_tree, finish, merge, part
from ..quantising import softmax

MOST_RANKS = 4
ROUNDING = 1e-12
"""Of max|v|. What weighs anything has an exponent above -745: its rounding moves a weight by 745 u,
u = 2**-53, and that of exp, products and sums over up to 1,000 keys and merges by less than that
many u again, in numerator and denominator."""


def check(case: Case) -> None:
    """Merged parts against attention in float64, and dealt keys against one pass, bit for bit."""
    rng = case.rng
    for found in case.steps(list(attention_of(case))):
        for head, (scores, values) in enumerate(found.last(found.k, found.v)):
            where = f"layer {found.layer.index} head {head}"
            check_laws(random_parts(scores, values, rng), where)
            check_trees(scores, values, rng, where)
        check_dealt(found, case.model.weights.arithmetic, rng)


def random_parts(scores: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """Keys dealt to parts, some of which may have none."""
    owner = rng.integers(int(rng.integers(1, 6)), size=len(scores))
    return [part(scores[owner == who], values[owner == who]) for who in range(owner.max() + 2)]


def check_laws(parts: list[Part], where: str) -> None:
    """What holds in floats too: swapped, and merged with no key, a part is the same."""
    for one in parts:
        swapped = [merge(one, parts[0]), merge(parts[0], one)]
        alone = [merge(one, parts[-1]), one]  # the last has no key
        for left, right in (swapped, alone):
            equal = (left.top, left.total) == (right.top, right.total)
            if not (equal and np.array_equal(left.weighted, right.weighted)):
                raise Refuted(f"{where}: {left} is not {right}")


def check_trees(
    scores: np.ndarray, values: np.ndarray, rng: np.random.Generator, where: str
) -> None:
    """Any tree of any parts is attention; so it is where a key stands for equal ones."""
    expected = softmax(scores) @ values
    largest = float(np.abs(values).max())
    whole = finish(any_tree(random_parts(scores, values, rng), rng))
    expect_near(whole, expected, largest, f"{where}: merged")

    counts = rng.integers(1, 4, size=len(scores))
    repeated = part(np.repeat(scores, counts), np.repeat(values, counts, axis=0))
    counted = part(scores + np.log(counts), values)
    expect_near(finish(counted), finish(repeated), largest, f"{where}: equal keys as one")


def expect_near(got: np.ndarray, expected: np.ndarray, largest: float, what: str) -> None:
    """Raise `Refuted` unless two outputs are equal but for rounding."""
    off = float(np.abs(got - expected).max())
    if not off <= ROUNDING * largest:
        raise Refuted(f"{what}: off by {off}, which is more than {ROUNDING} of {largest}")


def check_dealt(found: Attention, arithmetic: Arithmetic, rng: np.random.Generator) -> None:
    """Keys dealt to ranks at random, which reduce in a random order, against one pass."""
    size = int(rng.integers(2, MOST_RANKS + 1))
    owner = rng.integers(size, size=len(found.k))

    def work(comm: Comm) -> np.ndarray:
        own = np.flatnonzero(owner == comm.rank)
        split = over_context(arithmetic, comm)
        return split.attention(found.q, found.k[own], found.v[own], found.sight(own), found.scale)

    for rank, z in enumerate(run_threads(size, work, int(rng.integers(2**20)))):
        assert_same_bits(z, found.z, f"layer {found.layer.index}: rank {rank} of {size}")


def control(case: Case) -> str:
    """How many heads of the last token have other bits where parts are merged in float64."""
    rng = case.rng
    heads = others = 0
    for found in attention_of(case):
        for (scores, values), exact in zip(found.last(found.k, found.v), found.z[-1], strict=True):
            merged = finish(any_tree(random_parts(scores, values, rng), rng))
            heads += 1
            others += not same_bits(merged.astype(np.float32) + np.float32(0.0), exact)
    return f"{others} of {heads} heads have other bits" if others else ""


THEOREM = Theorem(
    id="A1",
    name="merge",
    text=__doc__,
    formula="attend(<i>parts</i>, any tree) = attend(<i>keys</i>)",
    remark="Parts are a commutative monoid; in bits, they share a maximum, a denominator, a grid.",
    hypotheses=(EXACT_SUMS,),
    check=check,
    control=control,
    dropped="the grid that all parts share",
    abstract="Merge.any_partition",
    concrete=("MergeBits.merged_is_one_pass", "MergeBits.merged_logits"),
    scope="two to four ranks, threads of one process",
    unlabelled="about values",
)

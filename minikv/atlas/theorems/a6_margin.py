r"""A token that leads by more than twice what the logits are off is the exact run's.

Let logits $z'$ be within $b$ of the exact $z$, but for a shift that all share, and let token $i$
lead every other by more than $2b$ in $z'$. Then $i$ is the most likely token of $z$ too. Pair by
pair: it is enough that $i$ leads each $j$ by more than the difference $z_i - z_j$ moves. *Proof.* A
lead moves by at most $2b$. With a lead of $2b$ itself there may be a tie.
*Check.* Keys and values of a few bits, and windows: no token that is certified is another one; a
lead of just $2b$ is not certified, and a little more is.
*Control.* Without the 2: logits that are moved by $b$, and lead by more than $b$, name another
token.

The $b$ here is an oracle's: it is taken from the exact run.
"""

from __future__ import annotations

import math

import numpy as np

from ...verify.bits import Refuted
from ...verify.cases import Case
from ...verify.theorem import Theorem
from ..margins import certified, certified_in_pairs, leads, off_by, off_in_pairs
from ..systems.kv_tuner import equal

BITS = (2, 3, 4, 8)


def check(case: Case) -> None:
    """What is certified in lossy runs, beside the exact run's tokens."""
    check_edge()
    bits = int(case.rng.choice(BITS))
    rounded = equal(case.model, (bits, bits))
    window = case.model.new_cache("window", budget=max(1, len(case.ids) // 3))
    for memory in (rounded, window):
        check_certified(case.decoded(memory), case.logits)


def check_certified(lossy: np.ndarray, exact: np.ndarray) -> None:
    """Every certified token of some rows is the exact one's; ``(T, V)`` twice."""
    for position, (row, wanted) in enumerate(zip(lossy, exact, strict=True)):
        off = off_by(row, wanted)
        alone = certified(row, off)
        in_pairs = certified_in_pairs(row, off_in_pairs(row, wanted))
        if alone and not in_pairs:
            raise Refuted(f"position {position}: certified, and not pair by pair")
        said = f"position {position}: token {row.argmax()} is certified"
        if in_pairs and row.argmax() != wanted.argmax():
            raise Refuted(f"{said}, which the exact run does not say: {wanted.argmax()}")
        if in_pairs and not leads(wanted).min() > 0:
            raise Refuted(f"{said}, which does not lead in the exact run")


def check_edge() -> None:
    """A lead of twice the bound is too little, and a little more is enough."""
    edge = np.array([1.0, -1.0, -1.0])
    above = np.array([1.0 + 2.0**-40, -1.0, -1.0])
    pairs = np.full(3, 2.0)
    if certified(edge, 1.0) or certified_in_pairs(edge, pairs):
        raise Refuted("a lead of 2 is certified where logits may be off by 1")
    if not (certified(above, 1.0) and certified_in_pairs(above, pairs)):
        raise Refuted("a lead of more than 2 is not certified where logits may be off by 1")


def control(case: Case) -> str:
    """Whether some of the exact logits, moved by b, name another token and lead by more than b."""
    for position, exact in enumerate(case.logits.astype(np.float64)):
        ahead = leads(exact)
        second = int(ahead.argmin())
        lead = float(ahead[second])
        if not 0 < lead < math.inf:
            continue
        off = 1.25 * lead
        moved = exact.copy()
        moved[second] += off
        moved[int(exact.argmax())] -= off
        if moved.argmax() == second and leads(moved).min() > off and not certified(moved, off):
            return f"position {position}: off by {off:.2g}, another token leads by more than that"
    return ""


THEOREM = Theorem(
    id="A6",
    name="margin",
    text=__doc__,
    formula="<i>z</i>′<sub><i>i</i></sub> − <i>z</i>′<sub><i>j</i></sub> &gt; 2<i>b</i> ⟹ "
    "argmax <i>z</i> = <i>i</i>",
    remark="A difference of two logits moves by 2<i>b</i> at most.",
    check=check,
    control=control,
    dropped="the factor 2",
    abstract="Margin.token_certificate",
    scope="an implication; the bound is measured",
    unlabelled="about values",
)

r"""Decoding without a cache gives the same logits.

Decoding with a full cache, with none, and one pass over the text give the same logits. *Proof.*
Induction on calls. By T8 a new token leaves old rows as they were, so what was stored is what would
be computed now, by T1 from the same rows.
"""

from __future__ import annotations

from ..bits import assert_same_bits
from ..cases import Case
from ..theorem import (
    CAUSALITY,
    EXACT_SUMS,
    NO_BYPASS,
    ROW_LOCALITY,
    Theorem,
    Weaker,
    refuted_in_float32,
)


def check(case: Case) -> None:
    """With no cache at all, each call gives the logits that the full cache gives."""
    full = case.decoded(case.model.new_cache("full"))
    assert_same_bits(case.decoded(case.model.new_cache("none")), full, "logits without a cache")
    assert_same_bits(case.logits, full, "logits of one pass")


THEOREM = Theorem(
    id="T3",
    name="cache-free",
    text=__doc__,
    formula="<i>z</i>(decode, full cache) = <i>z</i>(decode, no cache) = <i>z</i>(one pass)",
    remark="The cache holds what T1 would compute again, and by T8 what it holds is still right "
    "after later tokens.",
    hypotheses=(NO_BYPASS, CAUSALITY, ROW_LOCALITY),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    abstract="Markov.decode_is_forward",
    concrete=(
        "Concrete.concrete_decode_is_forward",
        "Machines.any_machines_any_chunks",
    ),
    unlabelled="two runs are compared",
    weaker=(
        Weaker(
            "no-cache-unseen",
            old='assert_same_bits(case.decoded(case.model.new_cache("none")), full,',
            new="assert_same_bits(full, full,",
            noticed="none-forgets-the-oldest",
        ),
        Weaker(
            "one-pass-unseen",
            old='assert_same_bits(case.logits, full, "logits of one pass")',
            new="None",
            noticed="first-position-is-one",
        ),
        Weaker(
            "one-call",
            old="for count in self.chunks:",
            new="for count in (len(self.ids),):",
            noticed="q-at-position-of-the-call",
            file="cases.py",
        ),
    ),
)

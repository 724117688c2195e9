r"""A row does not depend on which rows share the call.

For every operation $f$ of a block and every row $i$, $f(X)_i = f(X_i)$, whatever rows share the
call.
*Proof.* For real numbers this is the definition of the operations. For floating point the number of
rows may change the order of a sum, and by T7 the order does not matter. In Rocq, `Markov.v` assumes
it; of the concrete decoder it is a theorem (`Concrete.concrete_rows`, `Machines.rest_same`).
"""

from __future__ import annotations

import numpy as np

from ...arrays import to_numpy
from ..bits import assert_same_bits
from ..cases import Case
from ..dataflow import ALL_KINDS, Flow, Row
from ..theorem import EXACT_SUMS, Theorem, Weaker, refuted_in_float32


def check(case: Case) -> None:
    """A sequence's logits do not depend on what else is in the batch, or on its order."""
    texts = [case.ids, case.other[: case.chunks[0]], case.other, case.ids[: case.chunks[-1]]]
    alone = [to_numpy(case.model.logits(text)) for text in texts]
    for order in (range(len(texts)), case.rng.permutation(len(texts)).tolist()):
        batch = case.model.forward([texts[number] for number in order], logits="all")
        expected = np.concatenate([alone[number] for number in order])
        assert_same_bits(batch, expected, f"logits of a ragged batch in the order {list(order)}")


def of_its_own_text(row: Row) -> bool:
    """Whether it depends on no other text of the call."""
    text, _ = row.place
    return all(other == text for other, _ in row.rows | row.tokens)


THEOREM = Theorem(
    id="T6",
    name="row locality",
    text=__doc__,
    formula="<i>f</i>(<i>X</i>)[<i>i</i>] = <i>f</i>(<i>X</i>[<i>i</i>]) for every operation "
    "<i>f</i>, in any batch and order",
    remark="<code>prove</code> runs it on whole decoders, the logits of ragged batches; the tests "
    "do so operation by operation. On paper this is so by definition. In floating point it needs "
    "T7, since a larger matrix product adds in another order.",
    hypotheses=(EXACT_SUMS,),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    concrete=(
        "Concrete.concrete_rows",
        "Machines.kv_same",
        "Machines.activations_same",
        "Machines.rest_same",
    ),
    scope="logits of ragged batches",
    flows=(Flow(ALL_KINDS, of_its_own_text, "depends on another text of the call"),),
    weaker=(
        Weaker(
            "in-the-given-order",
            old="(range(len(texts)), case.rng.permutation(len(texts)).tolist())",
            new="(range(len(texts)),)",
            noticed="values-of-the-first-if-longer-than-it",
        ),
        Weaker(
            "one-text",
            old="texts = [case.ids, case.other[: case.chunks[0]], case.other, case.ids",
            new="texts = [case.ids] or [case.ids",
            noticed="queries-of-the-first-sequence",
        ),
        Weaker(
            "the-same-text-over-and-over",
            old="texts = [case.ids, case.other[: case.chunks[0]], case.other, case.ids",
            new="texts = [case.ids] * 4 or [case.ids",
            noticed="keys-of-the-first-sequence",
        ),
    ),
)

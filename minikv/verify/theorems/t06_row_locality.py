r"""A row does not depend on which rows share the call.

For every operation $f$ of a block and every row $i$, $f(X)_i = f(X_i)$, whatever rows share the
call.
*Proof.* For real numbers this is the definition of the operations. For floating point the number of
rows may change the order of a sum, and by T7 the order does not matter. In Rocq it is an
assumption.
"""

from __future__ import annotations

import numpy as np

from ...arrays import to_numpy
from ..cases import Case, same_bits
from ..theorem import EXACT_SUMS, Theorem, refuted_in_float32


def check(case: Case) -> None:
    """A sequence's logits do not depend on what else is in the batch, or on its order."""
    texts = [case.ids, case.other[: case.chunks[0]], case.other, case.ids[: case.chunks[-1]]]
    alone = [to_numpy(case.model.logits(text)) for text in texts]
    for order in (range(len(texts)), case.rng.permutation(len(texts)).tolist()):
        batch = case.model.forward([texts[number] for number in order], logits="all")
        expected = np.concatenate([alone[number] for number in order])
        same_bits(batch, expected, f"logits of a ragged batch in the order {list(order)}")


THEOREM = Theorem(
    id="T6",
    name="row locality",
    text=__doc__,
    formula="<i>f</i>(<i>X</i>)[<i>i</i>] = <i>f</i>(<i>X</i>[<i>i</i>]) for every operation "
    "<i>f</i>, in any batch, padding and order",
    remark="On paper this is so by definition. In floating point it needs T7, since a larger "
    "matrix product adds in another order.",
    hypotheses=(EXACT_SUMS,),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    unlabelled="the certificate assumes it",
)

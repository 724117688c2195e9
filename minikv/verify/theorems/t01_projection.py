r"""K and V are projections of the residual stream.

For any positions $P$ in any order, $(K_l, V_l)[P] = \pi_l(H_l[P], P)$. *Proof.* A key is
$\mathrm{RoPE}_p(W_K\,\mathrm{norm}(h_{l,p}))$, a value $W_V\,\mathrm{norm}(h_{l,p})$: functions of
one row and its position. The code has one such function, which prefill, decoding and recomputation
all call; that it gives a row the same bits in any company is T6.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...arrays import Array, Positions, Stream
from ...layers import Layer
from ...projection import kv_from_residual
from ..bits import assert_same_bits
from ..cases import Case
from ..dataflow import Flow, Kind, Row
from ..theorem import EXACT_SUMS, NO_BYPASS, ROW_LOCALITY, Theorem, Weaker, refuted_in_float32


def check(case: Case) -> None:
    """Any rows of the stream, in any order, project to the K/V that a decoder cached."""
    cache = case.model.new_cache("full")
    case.decoded(cache)
    cached = cache.state()[0]
    rng = case.rng
    tokens = len(case.ids)
    for layer in case.steps(case.model.layers):
        sizes = {1, tokens, int(rng.integers(1, tokens + 1))}
        check_rows(
            f"layer {layer.index}",
            layer,
            case.activations[f"blocks.{layer.index}.hook_resid_pre"],
            case.positions,
            (cached[f"k.{layer.index}"], cached[f"v.{layer.index}"]),
            [rng.permutation(tokens)[:size] for size in sizes],
        )


def check_rows(
    where: str,
    layer: Layer,
    stream: Stream,
    positions: Positions,
    made: tuple[Array, Array],
    choices: Iterable[np.ndarray],
) -> None:
    """Each choice of rows projects to those rows of the K and V that were made."""
    for rows in choices:
        projected = kv_from_residual(stream[rows], positions[rows], layer)
        for name, got, expected in zip("KV", projected, made, strict=True):
            assert_same_bits(got, expected[rows], f"{name} of {where}, rows {rows}")


def of_its_own_row(row: Row) -> bool:
    """Whether it depends on the stream at its own position, and nowhere else."""
    return row.rows == {row.place}


THEOREM = Theorem(
    id="T1",
    name="projection",
    text=__doc__,
    formula="(<i>K<sub>l</sub></i>, <i>V<sub>l</sub></i>)[<i>P</i>] = "
    "<i>π<sub>l</sub></i>(<i>h<sub>l</sub></i>[<i>P</i>], <i>P</i>) "
    "for any positions <i>P</i>, in any order",
    remark="A key is RoPE<sub><i>p</i></sub>(<i>W<sub>K</sub></i> norm(<i>h<sub>p</sub></i>)), "
    "a value <i>W<sub>V</sub></i> norm(<i>h<sub>p</sub></i>): functions of one row of the stream "
    "and its position. That the same rows give the same bits in any batch is T6.",
    hypotheses=(NO_BYPASS, ROW_LOCALITY),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    abstract="Markov.projection",
    concrete=("Concrete.concrete_projection",),
    flows=(Flow((Kind.FIRST_KV, Kind.OWN_KV), of_its_own_row, "is not a function of its own row"),),
    weaker=(
        Weaker(
            "rows-in-order",
            old="[rng.permutation(tokens)[:size] for size in sizes]",
            new="[np.arange(tokens)[:size] for size in sizes]",
            noticed="k-of-sorted-positions",
        ),
        Weaker(
            "layer-0-alone",
            old="case.steps(case.model.layers)",
            new="case.steps(case.model.layers[:1])",
            noticed="k-of-one-row-above-layer-0",
        ),
        Weaker(
            "keys-alone",
            old='zip("KV", projected, made, strict=True)',
            new='zip("K", projected[:1], made[:1], strict=True)',
            noticed="v-of-the-calls-first-row-too",
        ),
        Weaker(
            "bits-as-values",
            old="a.view(bits) != b.view(bits)",
            new="a != b",
            noticed="zeros-stored-negative",
            file="bits.py",
        ),
    ),
)

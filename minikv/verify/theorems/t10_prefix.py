r"""K/V of layer 0 depend on token and position alone.

$K_0, V_0$ at position $p$ depend on $(x_p, p)$ alone; from layer 1 up they depend, in general, on
the whole visible prefix (T11).
*Proof.* $h_{0,p} = E(x_p)$, then T1. Above, $B_0$ has attended to the prefix, and two texts that
differ in their first token show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Array
from ...decoder import embed
from ...projection import kv_from_residual
from ..bits import assert_same_bits, differ
from ..cases import Case
from ..dataflow import Flow, Kind, Row
from ..theorem import NO_BYPASS, ROW_LOCALITY, Theorem, Weaker


def check(case: Case) -> None:
    """K/V of layer 0 depend on the token and its position alone."""
    layer = case.model.layers[0]
    k, v = kv_rows(case, case.ids, 0)
    other_k, other_v = kv_rows(case, another_prefix(case), 0)
    assert_same_bits(other_k[-1], k[-1], "K of layer 0 at the last position after another prefix")
    assert_same_bits(other_v[-1], v[-1], "V of layer 0 at the last position after another prefix")
    token = embed(case.model.weights, np.array(case.ids[-1:]))
    alone_k, alone_v = kv_from_residual(token, case.positions[-1:], layer)
    assert_same_bits(alone_k[0], k[-1], "K of layer 0 from the token alone")
    assert_same_bits(alone_v[0], v[-1], "V of layer 0 from the token alone")


def another_prefix(case: Case) -> tuple[int, ...]:
    """The other text, but for the last token."""
    return (*case.other[:-1], case.ids[-1])


def kv_rows(case: Case, ids: Sequence[int], layer: int) -> tuple[Array, Array]:
    """Keys and values of a text at one layer, as cached; each ``(T, G, d)``."""
    cache = case.model.new_cache("full")
    case.model.forward([ids], [cache], "none")
    tensors = cache.state()[0]
    return tensors[f"k.{layer}"], tensors[f"v.{layer}"]


def control(case: Case) -> str:
    """Whether K of layer 1 at the last position changes with the prefix."""
    if len(case.model.layers) == 1:
        return ""
    k, other = (kv_rows(case, ids, 1)[0] for ids in (case.ids, another_prefix(case)))
    return "K of layer 1 differs" if differ(k[-1], other[-1]) else ""


def of_its_own_row(row: Row) -> bool:
    """Whether it depends on the stream at its own position, and nowhere else."""
    return row.rows == {row.place}


def of_its_own_token(row: Row) -> bool:
    """Whether it depends on its own row of the embedding, and on nothing else."""
    return row.tokens == {row.place} and not row.rows and not row.strays


def of_the_visible_prefix(row: Row) -> bool:
    """Whether it depends on every row within its reach, and on nothing else."""
    return row.rows == row.visible and not row.tokens and not row.strays


THEOREM = Theorem(
    id="T10",
    name="prefix",
    text=__doc__,
    formula="<i>h</i><sub>0,<i>p</i></sub> = <i>E</i>(<i>x<sub>p</sub></i>), so K and V of layer 0 "
    "are <i>π</i><sub>0</sub>(<i>E</i>(<i>x<sub>p</sub></i>), <i>p</i>)",
    remark="Above layer 0 this ends: block 0 has mixed the whole prefix into the row. "
    "The control takes layer 1.",
    hypotheses=(NO_BYPASS, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="layer 0 (taking layer 1 instead)",
    abstract="Markov.layer0_kv",
    concrete=("Concrete.concrete_layer0",),
    flows=(
        Flow((Kind.EMBEDDING,), of_its_own_token, "is not its token's alone"),
        Flow((Kind.FIRST_KV,), of_its_own_row, "is not a function of token and position"),
        Flow((Kind.LATER_KV,), of_the_visible_prefix, "is not the whole visible prefix's"),
    ),
    weaker=(
        Weaker(
            "token-alone-unseen",
            old="""    assert_same_bits(alone_k[0], k[-1], "K of layer 0 from the token alone")
    assert_same_bits(alone_v[0], v[-1], "V of layer 0 from the token alone")
""",
            new="""
""",
            noticed="k-position-within-the-call",
        ),
        Weaker(
            "keys-alone",
            old="assert_same_bits(alone_v[0], v[-1],",
            new="assert_same_bits(v[-1], v[-1],",
            noticed="v-of-one-row-alone",
        ),
        Weaker(
            "values-alone",
            old="assert_same_bits(alone_k[0], k[-1],",
            new="assert_same_bits(k[-1], k[-1],",
            noticed="k-position-within-the-call",
        ),
        Weaker(
            "values-after-another-prefix-unseen",
            old="assert_same_bits(other_v[-1], v[-1],",
            new="assert_same_bits(v[-1], v[-1],",
            noticed="v-of-the-first-row-where-positive",
            seed=2,
        ),
    ),
)

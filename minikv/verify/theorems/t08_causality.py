r"""A new token changes no earlier residual, K or V.

$H_l(x_1 \dots x_m)$ restricted to its first $n$ rows is $H_l(x_1 \dots x_n)$; so with $K_l$ and
$V_l$.
*Proof.* A masked score is $-\infty$, its weight exactly 0, and adding exact zeros changes no sum.
*Control.* Without the mask the first row drifts as soon as a token is added.
"""

from __future__ import annotations

from ...arrays import Array, NewKeys, NewValues, Positions, Stream
from ...layers import Layer
from ...memory import Attended
from ..bits import assert_same_bits, differ
from ..cases import Case
from ..dataflow import AT_OR_ABOVE, Flow, Row
from ..memories import Wrapped
from ..theorem import CAUSALITY, ROW_LOCALITY, Theorem, Weaker

_SEEN_BY_LATER_TOKENS = ("resid_pre", "resid_mid", "resid_post", "rot_k", "hook_v")


def check(case: Case) -> None:
    """Later tokens change no earlier residual, K or V, and no logits."""
    for cut in case.steps(sorted({1, case.chunks[0], len(case.ids)})):
        logits = case.model.logits(case.ids[:cut])  # without hooks: queries in blocks
        assert_same_bits(logits, case.logits[:cut], f"logits of the first {cut} tokens")
        prefix = case.model.run_with_cache(case.ids[:cut])[1]
        for name, value in prefix.items():
            if name.endswith(_SEEN_BY_LATER_TOKENS):
                expected = case.activations[name][:cut]
                assert_same_bits(value, expected, f"{name} of the first {cut} tokens")


class Unmasked(Wrapped):
    """Says that every key is at position 0, so that no query is masked.

    Layers with a window are left alone: it would hide such keys.
    """

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        attended, keys, values = super().update(layer, positions, residual, k, v)
        return attended if layer.window is not None else 0 * attended, keys, values


def control(case: Case) -> str:
    """Whether, without the mask, the last token changes the first one's stream."""
    if len(case.ids) == 1:
        return ""  # there is no later token
    last = f"blocks.{len(case.model.layers) - 1}.hook_resid_post"
    first_rows = []
    for text in (case.ids[:-1], case.ids):
        found: dict[str, Array] = {}
        memory = Unmasked(case.model.new_cache("full"))
        case.model.forward([text], [memory], "none", found.setdefault)
        first_rows.append(found[last][0])
    return "the first row differs" if differ(*first_rows) else ""


def sees_no_future(row: Row) -> bool:
    """Whether it depends on no later position."""
    text, position = row.place
    return all(other != text or seen <= position for other, seen in row.rows)


THEOREM = Theorem(
    id="T8",
    name="causality",
    text=__doc__,
    formula="<i>H<sub>l</sub></i>(<i>x</i><sub>1…<i>n</i></sub>) = "
    "<i>H<sub>l</sub></i>(<i>x</i><sub>1…<i>m</i></sub>)[1…<i>n</i>] for <i>n</i> ≤ <i>m</i>",
    remark="A masked key has weight exactly 0, and a term that is exactly 0 changes no sum. "
    "The control removes the mask.",
    hypotheses=(CAUSALITY, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="the causal mask",
    abstract="Markov.causal",
    concrete=("Concrete.concrete_causal",),
    flows=(Flow(AT_OR_ABOVE, sees_no_future, "sees the future"),),
    weaker=(
        Weaker(
            "the-whole-text-alone",
            old="sorted({1, case.chunks[0], len(case.ids)})",
            new="[len(case.ids)]",
            noticed="mask-leaks-one-key",
        ),
        Weaker(
            "logits-unseen",
            old='assert_same_bits(logits, case.logits[:cut], f"logits of the first {cut} tokens")',
            new="None",
            noticed="mask-by-the-blocks-last-query",
            seed=3,
        ),
        Weaker(
            "one-token-alone",
            old="sorted({1, case.chunks[0], len(case.ids)})",
            new="[1]",
            noticed="mask-right-for-row-0-alone",
        ),
    ),
)

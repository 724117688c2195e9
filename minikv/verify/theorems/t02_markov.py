r"""The whole stream at any layer determines the outputs.

If $H_l(x) = H_l(y)$ for one layer $l$, then $z(x) = z(y)$. So if a text $y$ has its whole stream at
layer $l$ replaced by that of $x$, its logits are those of $x$, and $D_{KL} = 0$ exactly.
*Proof.* Induction on the layers above $l$: $H_{m+1} = B_m(H_m)$ has no other argument.
These are the logits of the tokens so far. To continue as $x$ does it must also remember what $x$
remembers, and below $l$ it still holds the keys and values of $y$. With the streams at all layers
up to $l$ replaced, all keys and values are those of $x$ (T1, and T5 above $l$), and every later
token gets the logits that it gets after $x$.
*Control.* With the last position alone replaced, $D_{KL}$ is far from 0: attention still reads the
recipient's past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...arrays import Array, Logits, Stream
from ...patching import kl_divergence
from ..bits import Refuted, assert_same_bits
from ..cases import Case
from ..dataflow import AT_OR_ABOVE, Flow, Row
from ..theorem import NO_BYPASS, ROW_LOCALITY, Plot, Theorem, Weaker


def check(case: Case) -> None:
    """A text whose stream at layer l is replaced by a donor's has the donor's logits.

    With the streams at all layers up to l replaced, so has the next token.
    """
    for layer in case.steps(case.model.layers):
        name = f"blocks.{layer.index}.hook_resid_pre"
        patched = case.model.run_with_hooks(case.other, {name: put(case.activations[name])})
        assert_same_bits(patched, case.logits, f"logits after patching layer {layer.index}")
        if kl_divergence(case.logits, patched).any():
            raise Refuted(f"D_KL is not 0 after patching layer {layer.index}")
        if len(case.ids) > 1:
            upto = range(layer.index + 1)
            what = f"logits of the next token, layers up to {layer.index} patched"
            assert_same_bits(continued(case, upto), case.logits[-1:], what)


def put(stream: Stream) -> Callable[[Array, str], Array]:
    """A hook that replaces an activation."""
    return lambda value, name: stream


def continued(case: Case, layers: Sequence[int]) -> Logits:
    """Logits of the first text's last token after the other text, with streams of the first.

    The other text, but for its last token, is run with the streams at some layers replaced, and
    remembered by a full cache.
    """
    streams = {
        name: case.activations[name][:-1]
        for name in (f"blocks.{layer}.hook_resid_pre" for layer in layers)
    }
    cache = case.model.new_cache("full")

    def patch(name: str, value: Array) -> Array:
        return streams.get(name, value)

    case.model.forward([case.other[:-1]], [cache], "none", patch)
    return case.model.forward([case.ids[-1:]], [cache], "all")


def last_position_patch(case: Case, layer: int) -> float:
    """D_KL (nats) at the last position where only that position of the stream is patched."""
    name = f"blocks.{layer}.hook_resid_pre"

    def patch(value: Array, _: str) -> Array:
        value = value.copy()
        value[-1] = case.activations[name][-1]
        return value

    patched = case.model.run_with_hooks(case.other, {name: patch})
    return float(kl_divergence(case.logits, patched)[-1])


def control(case: Case) -> str:
    """Patch the last position alone, in the middle."""
    loss = last_position_patch(case, len(case.model.layers) // 2)
    return f"D_KL = {loss:.3g} nats" if loss > 1e-3 else ""


def losses(case: Case) -> list[tuple[float, float]]:
    """The control at each layer, log10; layers at which it gives 0 are left out."""
    found = [(layer.index, last_position_patch(case, layer.index)) for layer in case.model.layers]
    return [(layer, math.log10(loss)) for layer, loss in found if loss > 0]


def not_past_the_stream(row: Row) -> bool:
    """Whether nothing but the labelled stream leads to it."""
    return not row.tokens and not row.strays


THEOREM = Theorem(
    id="T2",
    name="Markov",
    text=__doc__,
    formula="<i>H<sub>l</sub></i>(<i>x</i>) = <i>H<sub>l</sub></i>(<i>y</i>) ⟹ "
    "<i>z</i>(<i>x</i>) = <i>z</i>(<i>y</i>), "
    "so D<sub>KL</sub> = 0 after patching any layer <i>l</i>",
    remark="Every block reads the stream and nothing else. By induction on the blocks above "
    "<i>l</i>, equal streams stay equal up to the logits. The stream is meant at all positions: "
    "the control patches the last position alone.",
    hypotheses=(NO_BYPASS, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="all positions but the last",
    abstract="Markov.markov",
    concrete=("Concrete.concrete_markov",),
    flows=(Flow(AT_OR_ABOVE, not_past_the_stream, "depends on more than the stream"),),
    plot=Plot(
        caption="The control at each layer: D<sub>KL</sub> after patching the last position alone. "
        "(Patching the whole stream gives 0 at every layer. Layers at which the control gives 0 "
        "are left out.)",
        across="layer",
        up="log₁₀ of D(KL), nats",
        points=losses,
    ),
    weaker=(
        Weaker(
            "last-layer-alone",
            old="case.steps(case.model.layers)",
            new="case.steps(case.model.layers[-1:])",
            noticed="embedding-after-block-0",
        ),
        Weaker(
            "layer-0-alone",
            old="case.steps(case.model.layers)",
            new="case.steps(case.model.layers[:1])",
            noticed="values-of-layer-0-in-layer-1",
        ),
        Weaker(
            "next-token-unseen",
            old="if len(case.ids) > 1:",
            new="if False:",
            noticed="q-at-position-of-the-call",
        ),
        Weaker(
            "patched-into-itself",
            old="patched = case.model.run_with_hooks(case.other, {name: put",
            new="patched = case.model.run_with_hooks(case.ids, {name: put",
            noticed="embedding-added-in-each-block",
            seed=3,
        ),
        Weaker(
            "bits-unseen",
            old="assert_same_bits(patched, case.logits,",
            new="assert_same_bits(patched, patched,",
            noticed="patched-zeros-negative",
        ),
        Weaker(
            "divergence-unseen",
            old="if kl_divergence(case.logits, patched).any():",
            new="if False:",
            noticed="divergence-of-equals-is-not-0",
        ),
    ),
)

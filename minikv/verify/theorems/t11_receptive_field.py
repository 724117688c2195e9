r"""Through windows a stream sees no further than its reach.

In some architectures a layer $l$ looks through a window of $w_l$ positions: its attention sums over
$p - w_l < s \le p$ only. Then row $p$ of $H_m$ depends on $H_l$ at no position before $p -
\sum_{i=l}^{m-1} (w_i - 1)$, the **reach** from $l$ to $m$; with one layer between them that sees
everything there is no such bound. *Proof.* One layer sees $w_l - 1$ rows back. Induction on $m$: a
row that row $p$ of layer $m$ reads is at most $w_m - 1$ back, and by hypothesis it depends on rows
no further back than the reach below it.

So the state of T2 has an end. A checkpoint at layer $l$, from which the layers up to the next
checkpoint $m$ are replayed, must keep the newest $\sum (w_i - 1)$ rows and no others, if all of
these layers have windows: `Residual(forget=True)` drops the rest, a chunk at a time. A checkpoint
below a layer that sees everything must keep all rows. In Gemma 3 every sixth layer does, so that
the embedding alone can forget nothing, but with a checkpoint at every layer the others need a
window less one row each.
*Control.* The bound is attained: the row exactly that far back does change the next layer's. (Over
several layers: the labels of D, and an example in Rocq.)
"""

from __future__ import annotations

from collections.abc import Iterator

from ...arrays import Stream
from ...decoder import Span, block
from ..bits import assert_same_bits, differ
from ..cases import Case
from ..dataflow import Flow, Kind, Row
from ..theorem import NO_BYPASS, ROW_LOCALITY, Theorem, Weaker


def check(case: Case) -> None:
    """Through sliding windows a stream depends on no row further back than its reach.

    From each layer on, rows before a cut are replaced by those of another text. Rows at least the
    reach behind the cut must stay as they were, in every stream up to a layer that sees everything.
    """
    for start, cut in case.steps(list(enumerate(cuts(case)))):
        for stop, stream in disturbed(case, start, cut):
            first = cut + (case.config.reach(start, stop) or 0)
            assert_same_bits(
                stream[first:],
                stream_after(case, stop - 1)[first:],
                f"stream after layer {stop - 1} from {first} on, rows of layer {start} "
                f"before {cut} replaced",
            )


def control(case: Case) -> str:
    """Whether a row exactly the reach behind the last replaced one differs, in every layer."""
    found = []
    for start, cut in enumerate(cuts(case)):
        for stop, stream in disturbed(case, start, cut):
            row = cut - 1 + (case.config.reach(start, stop) or 0)
            if row < len(case.ids) and stop == start + 1:
                found.append(differ(stream[row], stream_after(case, start)[row]))
    return "a row the reach behind differs" if found and all(found) else ""


def stream_after(case: Case, layer: int) -> Stream:
    """The stream behind a layer, ``(T, D)``."""
    return case.activations[f"blocks.{layer}.hook_resid_post"]


def cuts(case: Case) -> list[int]:
    """For each layer, before which position its stream is replaced."""
    longest = max(1, len(case.ids) // 3)
    return case.rng.integers(1, longest + 1, len(case.model.layers)).tolist()


def disturbed(case: Case, start: int, cut: int) -> Iterator[tuple[int, Stream]]:
    """The streams above layer `start`, its rows before `cut` another text's, while they reach."""
    positions = case.positions
    name = f"blocks.{start}.hook_resid_pre"
    parts = [case.other_activations[name][:cut], case.activations[name][cut:]]
    stream = case.model.arithmetic.xp.concat(parts, axis=0)
    for layer in case.model.layers[start:]:
        reach = case.config.reach(start, layer.index + 1)
        if reach is None or cut + reach > len(positions):
            return
        stream = block(layer, stream, positions, [Span(slice(0, len(positions)), positions)])
        yield layer.index + 1, stream


def within_reach(row: Row) -> bool:
    """Whether it depends on no row further back than its reach."""
    return all(place in row.visible for place in row.rows if place < row.place)


THEOREM = Theorem(
    id="T11",
    name="receptive field",
    text=__doc__,
    formula="row <i>p</i> of <i>H<sub>m</sub></i> depends on no row of <i>H<sub>l</sub></i> before "
    "<i>p</i> − ∑<sub><i>l</i> ≤ <i>i</i> &lt; <i>m</i></sub> (<i>w<sub>i</sub></i> − 1)",
    remark="In layer <i>i</i> a token sees <i>w<sub>i</sub></i> positions, its own included. The "
    "control looks at the row exactly that far back, which does make a difference.",
    hypotheses=(NO_BYPASS, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="one position of the reach",
    abstract="Markov.receptive_field",
    concrete=("Concrete.concrete_receptive_field",),
    windowed=True,
    flows=(Flow((Kind.STREAM_AFTER, Kind.LOGITS), within_reach, "sees too far back"),),
    weaker=(
        Weaker(
            "one-row-late",
            old="first = cut + (case.config.reach(start, stop) or 0)",
            new="first = cut + (case.config.reach(start, stop) or 0) + 1",
            noticed="window-one-too-long",
        ),
        Weaker(
            "layer-0-alone",
            old="case.steps(list(enumerate(cuts(case))))",
            new="case.steps(list(enumerate(cuts(case)))[:1])",
            noticed="window-one-longer-above-layer-0",
            seed=6,
        ),
        Weaker(
            "nothing-replaced",
            old="case.other_activations[name][:cut]",
            new="case.activations[name][:cut]",
            noticed="window-one-too-long",
        ),
    ),
)

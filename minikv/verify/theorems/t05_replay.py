r"""From a checkpoint at layer c everything above follows.

From $H_c$ follow the streams, keys, values and logits of all layers from $c$ up; from the token
ids, everything: $z = U(B_{L-1}(\cdots B_c(H_c)))$. *Proof.* T2, whose function is the rest of the
decoder.
"""

from __future__ import annotations

import numpy as np

from ...decoder import Span, block, embed, unembed
from ...projection import kv_from_residual
from ..bits import assert_same_bits, differ
from ..cases import Case
from ..dataflow import Flow, Kind, Row
from ..theorem import NO_BYPASS, ROW_LOCALITY, Theorem, Weaker


def check(case: Case) -> None:
    """From the stream at layer c, all later streams, K/V and logits follow."""
    ids = np.array(case.ids)
    embedding = embed(case.model.weights, ids)
    assert_same_bits(embedding, case.activations["hook_embed"], "layer 0 from ids")
    for start in case.steps(case.model.layers):
        check_from(case, start.index)


def check_from(case: Case, start: int) -> None:
    """The same from one layer."""
    positions = case.positions
    span = Span(slice(0, len(positions)), positions)
    stream = case.activations[f"blocks.{start}.hook_resid_pre"]
    for layer in case.model.layers[start:]:
        name = f"blocks.{layer.index}."
        replayed = f"of layer {layer.index}, replayed from {start}"
        assert_same_bits(stream, case.activations[name + "hook_resid_pre"], f"stream {replayed}")
        k, v = kv_from_residual(stream, positions, layer)
        assert_same_bits(k, case.activations[name + "attn.hook_rot_k"], f"K {replayed}")
        assert_same_bits(v, case.activations[name + "attn.hook_v"], f"V {replayed}")
        stream = block(layer, stream, positions, [span])
    logits = unembed(case.model.weights, stream)
    assert_same_bits(logits, case.logits, f"logits, replayed from {start}")


def control(case: Case) -> str:
    """Replay with one position of another text's stream."""
    last = case.model.layers[-1]
    positions = case.positions
    changed = np.flatnonzero(np.not_equal(case.ids[:-1], case.other[:-1]))
    # Near the end: a window may hide the others.
    place = changed[-1] if len(changed) else 0
    name = f"blocks.{last.index}.hook_resid_pre"
    stream = case.activations[name].copy()
    stream[place] = case.other_activations[name][place]
    out = block(last, stream, positions, [Span(slice(0, len(positions)), positions)])
    truth = case.activations[f"blocks.{last.index}.hook_resid_post"]
    return "the last row differs" if differ(out[-1], truth[-1]) else ""


def of_all_that_it_sees(row: Row) -> bool:
    """Whether it depends on every row within its reach, and on nothing else."""
    return row.rows == row.visible and not row.tokens and not row.strays


THEOREM = Theorem(
    id="T5",
    name="replay",
    text=__doc__,
    formula="<i>z</i> = <i>U</i> ∘ <i>B<sub>L−1</sub></i> ∘ … ∘ <i>B<sub>c</sub></i> "
    "(<i>H<sub>c</sub></i>) for every layer <i>c</i>; <i>H</i><sub>0</sub> follows from the "
    "token ids",
    remark="T2 with its witness: the function is the rest of the decoder itself.",
    hypotheses=(NO_BYPASS, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="one position of the checkpoint",
    abstract="Markov.replay",
    concrete=("Concrete.concrete_replay",),
    flows=(
        Flow(
            (Kind.STREAM_AFTER, Kind.LOGITS),
            of_all_that_it_sees,
            "is not the replay of what it sees",
        ),
    ),
    weaker=(
        Weaker(
            "keys-unseen",
            old='assert_same_bits(k, case.activations[name + "attn.hook_rot_k"], f"K {replayed}")',
            new="None",
            noticed="hook-sees-k-before-it-is-settled",
        ),
        Weaker(
            "values-unseen",
            old='assert_same_bits(v, case.activations[name + "attn.hook_v"], f"V {replayed}")',
            new="None",
            noticed="hook-sees-v-before-it-is-settled",
        ),
        Weaker(
            "streams-unseen",
            old='assert_same_bits(stream, case.activations[name + "hook_resid_pre"],',
            new="assert_same_bits(stream, stream,",
            noticed="hook-sees-odd-layers-streams-negated",
            seed=10,
        ),
        Weaker(
            "logits-unseen",
            old="assert_same_bits(logits, case.logits,",
            new="assert_same_bits(case.logits, case.logits,",
            noticed="logits-in-reverse",
        ),
        Weaker(
            "embedding-unseen",
            old='assert_same_bits(embedding, case.activations["hook_embed"],',
            new="assert_same_bits(ids, ids,",
            noticed="embedding-doubled-in-forward",
        ),
    ),
)

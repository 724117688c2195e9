"""Proposition 3.1: decoders have the property of definition 3.1."""

from __future__ import annotations

from ..claim import Claim, Figures, Finding, Setting, Verdict
from ..proved import COLUMNS, all_hold, proved

THEOREMS = ("T2", "T5", "D")
SHORT = ("D",)  # of a quick run on real weights: definition 3.1 has T2 there


def run(setting: Setting) -> Finding:
    """The induction, run: from a layer's stream everything above follows, and no edge passes it."""
    found = proved(setting, THEOREMS, setting.choose(THEOREMS, SHORT))
    figures = {"theorems": [each.exact for each in found]}
    rows = tuple(result.row for result in found)
    return Finding(*told(figures), COLUMNS, rows, figures)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Whether the theorems and the certificate hold."""
    if not all_hold(figures):
        return Verdict.REFUTED, "A theorem fails, or its control does not: see the table."
    return Verdict.REPRODUCED, (
        "From the stream of a layer the logits follow (T2), and from a checkpoint of it the "
        "streams, keys and values at that layer and above (T5). That needs a hypothesis about the "
        "architecture: no edge passes the stream. For the decoders here the certificate D shows "
        "it, with labels in the place of numbers. Where an edge does pass it, the proposition is "
        "false: with value residuals, for example, or averages of earlier layers "
        "(proofs/counterexamples)."
    )


CLAIM = Claim(
    id="proposition-3.1",
    where="Proposition 3.1",
    title="Decoders are Markov from layer to layer",
    says=(
        "by induction over the layers, every decoder whose blocks read the residual stream has "
        "the property of definition 3.1."
    ),
    protocol=(
        "theorems T2 and T5 and the dataflow certificate D (`minikv prove --only T2,T5,D`) under "
        "exact arithmetic, on random models of every family and on texts with real weights. "
        "--quick: fewer of both. The abstract form of T2 and T5 is proved in Rocq "
        "(proofs/rocq/Markov.v)."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    exact=("theorems",),
)

"""Proposition 3.1: decoders have the property of definition 3.1."""

from __future__ import annotations

from ..claim import Claim, Finding, Setting, Verdict
from ..proved import COLUMNS, proved

THEOREMS = ("T2", "T5", "D")
SHORT = ("D",)  # of a quick run on real weights: definition 3.1 has T2 there


def run(setting: Setting) -> Finding:
    """The induction, run: from a layer's stream everything above follows, and no edge passes it."""
    found = proved(setting, THEOREMS, setting.choose(THEOREMS, SHORT))
    verdict = Verdict.REPRODUCED
    if any(result.verdict != "holds" for result in found):
        verdict = Verdict.REFUTED
    reason = (
        "The paper's induction is theorem T2's, and what it makes of a checkpoint is T5: from the "
        "stream of a layer, everything at that layer and above follows. It needs a hypothesis "
        "that is about the architecture: no edge passes the stream. For the decoders here the "
        "certificate D shows it, with labels in the place of numbers. Where an edge does pass it "
        "(value residuals, averages of earlier layers), the proposition is false: "
        "proofs/counterexamples."
    )
    rows = tuple(result.row for result in found)
    return Finding(verdict, reason, COLUMNS, rows, {"theorems": [each.exact for each in found]})


CLAIM = Claim(
    id="proposition-3.1",
    where="Proposition 3.1",
    title="Decoders are Markov from layer to layer",
    says=(
        "by induction over the layers, every decoder whose blocks read the residual stream has "
        "the property of definition 3.1."
    ),
    protocol=(
        "theorems T2 and T5 and the dataflow certificate D as `minikv prove` runs them, under "
        "exact arithmetic, on random models of every family and on real weights. --quick: fewer "
        "of both. Their abstract form is proved in Rocq (proofs/rocq/Markov.v), which is not run "
        "here."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    exact=("theorems",),
)

"""Definition 3.1: what it means that the residual stream is the state."""

from __future__ import annotations

from ..claim import Claim, Figures, Finding, Setting, Verdict
from ..proved import COLUMNS, all_hold, proved

THEOREMS = ("T2",)


def run(setting: Setting) -> Finding:
    """Replace the stream at all positions, and at the last alone."""
    found = proved(setting, THEOREMS)
    figures = {"theorems": [each.exact for each in found]}
    rows = tuple(result.row for result in found)
    return Finding(*told(figures), COLUMNS, rows, figures)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Whether T2 holds and needs all positions."""
    if not all_hold(figures):
        return Verdict.REFUTED, "T2 fails, or its control shows no difference: see the table."
    return Verdict.REPRODUCED, (
        "A text whose stream at one layer is another's, at all positions, has the other's logits "
        "in every bit, at every layer (T2). It takes all positions: with the last one alone "
        "replaced, the distribution is another one."
    )


CLAIM = Claim(
    id="definition-3.1",
    where="Definition 3.1",
    title="The stream at all positions of a layer determines the next token",
    says=(
        "a decoder has the property that it is named for if the residual stream of one layer, at "
        "all positions, determines the distribution of the next token."
    ),
    protocol=(
        "theorem T2 (`minikv prove --only T2`) under exact arithmetic, on random models of every "
        "family and on texts with real weights. --quick: fewer of both."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    exact=("theorems",),
)

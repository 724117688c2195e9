"""Definition 3.1: what it means that the residual stream is the state."""

from __future__ import annotations

from ..claim import Claim, Finding, Setting, Verdict
from ..proved import COLUMNS, proved

THEOREMS = ("T2",)


def run(setting: Setting) -> Finding:
    """Replace the stream at all positions, and at the last alone."""
    found = proved(setting, THEOREMS)
    verdict = Verdict.REPRODUCED
    if any(result.verdict != "holds" for result in found):
        verdict = Verdict.REFUTED
    reason = (
        "Theorem T2: a text whose stream at one layer is another's, at all positions, has the "
        "other's logits in every bit, at every layer. It takes all positions: with the last one "
        "alone replaced, the distribution is another one. So the state grows with the text, and is "
        "no fixed number of vectors."
    )
    rows = tuple(result.row for result in found)
    return Finding(verdict, reason, COLUMNS, rows, {"theorems": [each.exact for each in found]})


CLAIM = Claim(
    id="definition-3.1",
    where="Definition 3.1",
    title="The stream at all positions of a layer determines the next token",
    says=(
        "a decoder has the property that it is named for if the residual stream of one layer, at "
        "all positions, determines the distribution of the next token."
    ),
    protocol=(
        "theorem T2 as `minikv prove --only T2` runs it, under exact arithmetic: on random models "
        "of every family, and on real weights. --quick: fewer of both."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    exact=("theorems",),
)

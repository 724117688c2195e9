"""No causal mask: every token attends to all tokens of its call, later ones too.

A new token then changes the streams of earlier ones, and with them all K and V above layer 0.
"""

from minikv.verify.theorems import unmasked_drift

THEOREM = "T8"


def refuted(case) -> bool:
    return len(case.ids) > 1 and unmasked_drift(case)

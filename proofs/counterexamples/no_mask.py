"""No causal mask: every token attends to all tokens of its call, later ones too.

A new token then changes the streams of earlier ones, and with them all K and V above layer 0.
"""

from minikv.verify import THEOREMS

THEOREM = "T8"


def refuted(case) -> bool:
    """What the control of T8 does: every key is said to be at position 0."""
    return bool(THEOREMS[THEOREM].control(case))

"""Checkpoints without positions: an evicted key is recomputed as if it stood at position 0.

A residual says what a token is, not where it is: rotary keys need both. The cure is KV-Direct as it
stands, whose checkpoints are kept in the order of the text.
"""

from minikv.verify import same_bits
from minikv.verify.theorems.t04_any_eviction import Unplaced

THEOREM = "T4"


def refuted(case) -> bool:
    return not same_bits(case.decoded(Unplaced(case.model.new_cache("full"))), case.logits)


def cured(case) -> bool:
    cache = case.model.new_cache("residual", budget=0, checkpoints="every")
    return same_bits(case.decoded(cache), case.logits)

"""A quantised KV cache: K and V are rounded to a grid of 1/4 when they are stored.

A token sees itself and its call unrounded, and later calls see it rounded: the cache is no longer
redundant. The cure: round where K and V are made, so that every path sees the same numbers.
"""

import numpy as np

from minikv.verify import same_bits
from minikv.verify.memories import Wrapped

from . import call_by_call, one_pass

THEOREM = "T3"


def rounded(x):
    return np.rint(x * 4) / 4


class Quantised(Wrapped):
    """A cache that gives back rounded what earlier calls stored."""

    def update(self, layer, positions, residual, k, v):
        attended, keys, values = super().update(layer, positions, residual, k, v)
        past = len(attended) - len(positions)
        keys = np.concatenate([rounded(keys[:past]), k])
        values = np.concatenate([rounded(values[:past]), v])
        return attended, keys, values


def at_the_source(name, value):
    return rounded(value) if name.endswith(("attn.hook_rot_k", "attn.hook_v")) else value


def refuted(case) -> bool:
    return not same_bits(call_by_call(case, Quantised(case.model.new_cache("full"))), case.logits)


def cured(case) -> bool:
    whole = one_pass(case, case.ids, at_the_source)
    return same_bits(call_by_call(case, case.model.new_cache("full"), at_the_source), whole)

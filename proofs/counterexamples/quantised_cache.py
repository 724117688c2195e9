"""A quantised KV cache: K and V are rounded to a grid of 1/4 when they are stored.

A token sees itself and its call unrounded, and later calls see it rounded: the cache is no longer
redundant. The cure: round where K and V are made, so that every path sees the same numbers.
"""

import numpy as np

from minikv.caches import Full

from . import call_by_call, one_pass, same

THEOREM = "T3"


def rounded(x):
    return np.rint(x * 4) / 4


class Quantised(Full):
    def advance(self, tokens):
        for rows in (*self._k, *self._v):
            new = rows[self.seen : self.seen + tokens]
            new[:] = rounded(new)
        super().advance(tokens)


def at_the_source(name, value):
    return rounded(value) if name.endswith(("attn.hook_rot_k", "attn.hook_v")) else value


def refuted(case) -> bool:
    return not same(call_by_call(case, Quantised(case.model.weights)), case.logits)


def cured(case) -> bool:
    whole = one_pass(case, case.ids, at_the_source)
    return same(call_by_call(case, case.model.new_cache(), at_the_source), whole)

"""Keep the tokens whose keys are shortest.

The rule: of each K/V head the `budget` keys with the smallest length stay, of equals the newer.
Devoto et al. 2024 (arXiv 2406.11430) observe that short keys gather attention. Departures: they
leave the first two layers whole; here all layers evict, and lengths are of keys after rotation,
which does not change them but for rounding.

It must lose where the text asks for a token whose key is long: T9 bounds one output by the weight
that is dropped, and nothing in the rule looks at weights.
"""

from dataclasses import dataclass

import numpy as np

from minikv.caches import Evicting


@dataclass(eq=False, repr=False)
class Policy(Evicting):
    """Short keys stay."""

    policy = "short_keys"
    per_head = True

    def priority(self, rows):
        keys = np.asarray(rows.keys, dtype=np.float64)
        return -np.sum(keys * keys, axis=-1)


def oracle(keys, values, positions, budget):
    """The positions that stay, ascending."""
    length = {p: sum(x * x for x in key) for p, key in zip(positions, keys, strict=True)}
    order = sorted(positions, key=lambda p: (-length[p], p), reverse=True)
    return sorted(order[:budget])


def wrong_oracle(keys, values, positions, budget):
    """Long keys stay: what a sign that was forgotten would do."""
    return oracle([[1 / (1e-9 + sum(x * x for x in key))] for key in keys], [], positions, budget)


SHORT, LONG = [0.5, 0.0], [3.0, 4.0]
VECTORS = [
    ([SHORT, LONG, SHORT], [], [0, 1, 2], 2, [0, 2]),
    ([LONG, LONG, LONG], [], [0, 1, 2], 2, [1, 2]),  # of equals the newer
    ([LONG, SHORT], [], [4, 7], 3, [4, 7]),  # nothing has to go
]

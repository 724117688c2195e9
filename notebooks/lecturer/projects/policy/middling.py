"""Keep the tokens whose keys are shortest."""

from dataclasses import dataclass

import numpy as np

from minikv.caches import Evicting


@dataclass(eq=False, repr=False)
class Policy(Evicting):
    """Short keys stay."""

    policy = "short_keys"
    per_head = True

    def priority(self, rows):
        return -np.linalg.norm(np.asarray(rows.keys, dtype=np.float64), axis=-1)


def oracle(keys, values, positions, budget):
    """The positions that stay, ascending."""
    lengths = [sum(x * x for x in key) for key in keys]
    order = sorted(range(len(keys)), key=lambda i: lengths[i])
    return sorted(positions[i] for i in order[:budget])


VECTORS = [([[0.5, 0.0], [3.0, 4.0]], [], [0, 1], 1, [0])]

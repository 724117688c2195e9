"""S2O: keys are read from the most to the least important, and reading stops when little is left.

Zhang et al. 2026, arXiv 2602.22575. *Rule.* Keys are loaded in the order of their importance,
whatever their place; below a threshold the rest is not read.

*Departures.* Token by token, where the paper goes by small blocks; the order is that of the scores
themselves, where the paper estimates it; and the threshold is on the weight that is left, so that
the budget of error is certified.

*Its authors claim* an error several times smaller than other sparse attention of the same sparsity,
under a controlled budget. *Here* the budget is a theorem: left-out weight eps moves one output by
``2 eps max|v|``, and reading stops when every head of the group has eps or less left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Keys, Queries, to_numpy
from ...caches import Cache
from ...layers import Layer
from ...verify.theorems.t09_bounded_loss import longest
from ..entry import Comparison, Entry, Exactness, Kind, above, at_most, other, same, true
from ..ground import decoded, full_head_outputs, full_logits, last_outputs, new_full
from ..quantising import softmax
from ..reading import Reading


class EarlyStop(Reading):
    """Each K/V head reads the fewest keys that leave its query heads `eps` of weight at most."""

    def __init__(self, inner: Cache, eps: float) -> None:
        super().__init__(inner)
        self.eps = eps

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        groups = keys.shape[1]
        asked = to_numpy(q, dtype=np.float64).reshape(groups, -1, q.shape[-1])
        rows = to_numpy(keys, dtype=np.float64)
        read = np.zeros(keys.shape[:2], dtype=bool)
        for group in range(groups):
            scores = asked[group] @ rows[:, group].T * layer.config.attention_scale  # (R, S)
            weights = softmax(scores)
            order = np.argsort(-weights.max(axis=0), kind="stable")
            left = 1.0 - np.cumsum(weights[:, order], axis=1).min(axis=0)
            count = 1 + int(np.sum(left[:-1] > self.eps))
            read[order[:count], group] = True
        return read


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    budget = 0.2
    stopped = EarlyStop(new_full(), budget)
    logits, z = last_outputs(stopped)
    _, full, values = full_head_outputs()
    worst = max(
        float(np.linalg.norm(z[head] - full[head])) / longest(values[:, head // 2])
        for head in range(len(z))
    )
    read = [int(rows.sum(axis=0).min()) for rows in stopped.reads.values()]
    return [
        same(
            "no error allowed = the full cache", decoded(EarlyStop(new_full(), 0.0)), full_logits()
        ),
        at_most("eps of 0.2, layer 0: moved / max|v|", worst, 2 * budget),
        above("and it did move", worst, 0.0),
        true("some keys are not read", min(read) < len(logits), f"{read} of {len(logits)}"),
        other("the logits", logits, full_logits()),
    ]


ENTRY = Entry(
    name="s2o",
    title="S2O",
    arxiv="2602.22575",
    kind=Kind.SELECTING,
    state="the full cache",
    verdict=Exactness.BOUNDED,
    reason="Reading stops when a certified weight eps is left: one output then moves by "
    "2 eps max|v| at most. No error allowed is the full cache.",
    read="abstract; neither its code nor the text of its method was found",
    theorems=("T9",),
    demonstrate=demonstrate,
)

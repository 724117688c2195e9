"""H2O: heavy hitters and recent tokens; one of the five policies of the core.

Zhang et al. 2023, arXiv 2306.14048. *Rule.* Keep the newest tokens, and those that got the most
attention since they were made.

*Departures.* Those of `minikv.caches.H2O`, which runs here.

*Its authors claim* that 20 % of the tokens carry the accuracy, and a guarantee for a greedy choice
under assumptions on attention; not that bits stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...caches import H2O
from ..entry import Comparison, Entry, Exactness, Kind
from ..ground import evicting_comparisons


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    return evicting_comparisons(H2O, recent=2)


ENTRY = Entry(
    name="h2o",
    title="H2O",
    arxiv="2306.14048",
    kind=Kind.EVICTING,
    state="the rows kept, and the attention that each has gathered",
    verdict=Exactness.LOSSY,
    reason="Dropped mass eps moves one output by 2 eps max|v| at most; the logits are not bounded.",
    read="paper and the authors' code, for the core's policy",
    theorems=("T9",),
    policy=H2O,
    demonstrate=demonstrate,
)

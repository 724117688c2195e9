"""RelayCaching: an agent reuses the cache in which another one decoded, and mends where it is off.

Geng et al. 2026, arXiv 2603.13289. *Rule.* Keys and values of a passage are taken from the decoding
of an earlier agent, whose prefix was another. Where they deviate most, by layer and place, rows are
computed again; the others stay.

*Departures.* The passage keeps its positions. Which rows deviate is measured against the exact
cache, an oracle, where the paper finds layers once, offline, and tokens by how far they deviate and
how much they are looked at, the last ones besides.

*Its authors claim* more than 80 % of the cache reused at negligible loss of accuracy, and that
deviations are sparse and local. *Here:* after a change of the prefix, the kept tokens' rows have
the same bits at layer 0. At every layer above, the mended cache is exact if and only if every row
that changes is computed, there and at all layers below: what is called negligible is lossy by
theorem.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import TOKENS, kv, small_model, text
from ..reuse import least, mended, stacked, unchanged

CHANGED = 5  # tokens of the prefix that are others


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    new = (*text(1)[:CHANGED], *text()[CHANGED:])
    old = kv(model, text())
    exact = kv(model, new)
    equal = unchanged(old, exact)
    rows = least(equal)
    cache, logits = mended(model, old, new, rows)
    full = np.asarray(model.logits(new))
    short = rows.copy()
    short[:, -2] = False  # one row less, which the last token reads
    less, _ = mended(model, old, new, short)
    suffix = np.tile(np.arange(TOKENS) >= CHANGED, (2, 1))
    first = text(), (*text()[:CHANGED], *text(1)[CHANGED:])
    kept, _ = mended(model, kv(model, first[0]), first[1], suffix)
    layers = equal[:, CHANGED:].sum(axis=1).tolist()
    count = TOKENS - CHANGED
    return [
        true("rows of the passage unchanged at layer 0", layers[0] == count, f"{layers[0]}"),
        true("and at layer 1", layers[1] < count, f"{layers[1]} of {count}", control=True),
        same("every row that changes computed: the cache", stacked(cache), stacked(exact)),
        same("and the last logits", logits[-1], full[-1]),
        other("one row less", stacked(less), stacked(exact)),
        same("a prefix kept, the rest computed", stacked(kept), stacked(kv(model, first[1]))),
    ]


ENTRY = Entry(
    name="relay_caching",
    title="RelayCaching",
    arxiv="2603.13289",
    kind=Kind.REUSING,
    state="the rows that were kept and those that were made again: which ones is part of it",
    verdict=Exactness.LOSSY,
    reason="Layer 0 is exact under any prefix. Above, mending is exact if and only if every row "
    "that changes is computed, there and below.",
    cure="compute every row from the first change on",
    read="abstract, and others' code of its rule",
    theorems=("A4", "T1", "T8", "T10"),
    demonstrate=demonstrate,
)

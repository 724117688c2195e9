"""Duo-LLM: each token takes a big, a small or no module in each layer.

Alizadeh et al. 2024, arXiv 2410.10846. *Rule.* A router sends each token of each layer through the
whole network, through a small auxiliary one, or past it.

*Departures.* Past the layer, or through it; the router reads a row's first number. The small module
is left out, since it is one more network. By others' notes it stands beside the MLP of each layer,
and routes are drawn while the model is trained.

*Its authors claim* insight into what is worth computing, with oracles that try all routes. *Here:*
the theorems survive any route that is a function of the row: the cache is redundant, call by call,
bit for bit. A route that knows the calls breaks that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import decoded, full_logits, new_full, small_model, text
from ..routes import by_content, bypass


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    whole = to_numpy(model.forward([text()], None, "all", bypass(by_content)))
    by_calls = decoded(new_full(), bypass(by_content))
    residual = decoded(model.new_cache("none"), bypass(by_content))

    def by_call(rows: np.ndarray) -> np.ndarray:
        """A route that is no function of the row: it knows how many came with it."""
        return np.full(len(rows), len(rows) > 1)

    calls = decoded(new_full(), bypass(by_call))
    once = to_numpy(model.forward([text()], None, "all", bypass(by_call)))
    return [
        same("routed, call by call through the full cache = one pass", by_calls, whole),
        same("routed, without a cache", residual, whole),
        other("the route changes something", whole, full_logits()),
        other("a route that knows the call, call by call", calls, once),
    ]


ENTRY = Entry(
    name="duo_llm",
    title="Duo-LLM",
    arxiv="2410.10846",
    kind=Kind.STATE,
    state="the stream; the route is a function of it",
    verdict=Exactness.EXACT,
    reason="Any route that is a function of the row keeps the cache redundant, bit for bit.",
    read="abstract, and others' notes of the paper",
    theorems=("T3", "T6"),
    demonstrate=demonstrate,
)

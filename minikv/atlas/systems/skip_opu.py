"""SkipOPU: tokens that skip a layer use the keys and values of the layer below.

He et al. 2026, arXiv 2603.14785, a processor. *Rule.* A router leaves tokens out of layers; the
keys and values of a token that was left out are taken to be those of the layer before.

*Departures.* No hardware; the router is the sign of a row's first number.

*Its authors claim* up to 25 % less storage of keys and values. *Here:* a token that skips a layer
has the same stream behind it, bit for bit, and yet other keys and values in the next one, whose
weights are others: using them again is exact where the layers share their weights, and not in the
model here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...projection import kv_from_residual
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import small_model, text
from ..routes import by_content, passed, stream_of


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    first, second = model.layers
    before = to_numpy(stream_of(model, text()))
    works = by_content(before)
    behind = np.where(works[:, None], passed(first, before), before)
    positions = np.arange(len(text()))
    here, there, shared = (
        to_numpy(kv_from_residual(stream, positions, layer)[1])[~works]
        for stream, layer in ((before, first), (behind, second), (behind, first))
    )
    return [
        true("some tokens skip the layer", 0 < (~works).sum() < len(works), f"{(~works).sum()}"),
        same("their streams, before and behind", behind[~works], before[~works]),
        same("their values, in a layer of the same weights", shared, here),
        other("in the next layer", there, here),
    ]


ENTRY = Entry(
    name="skip_opu",
    title="SkipOPU",
    arxiv="2603.14785",
    kind=Kind.STATE,
    state="the stream; the route is a function of it",
    verdict=Exactness.LOSSY,
    reason="A skipped layer leaves the stream's bits, but the next layer's keys and values are "
    "others unless weights are shared. The processor is not built.",
    cure="project from the stream, which is the same",
    read="abstract; neither its code nor the text of its method was found",
    theorems=("T1",),
    counterexamples=("shared_kv",),
    demonstrate=demonstrate,
)

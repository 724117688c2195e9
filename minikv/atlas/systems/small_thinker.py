"""SmallThinker: some layers rotate keys by their positions, and some do not.

arXiv 2507.20984. *Rule.* Layers without positions stand between layers with rotations and windows,
which keeps the cache small; experts are chosen by the stream before attention. Which layers rotate
and which have windows are two lists of the model's configuration.

*Departures.* One layer of the small model, with its rotations taken out; no experts.

*Its authors claim* models made for small devices. *Here:* a layer without positions has the same
keys wherever a text stands, bit for bit, so that its cache may be moved; a layer with rotations has
not, and its scores are the same in the reals alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...arrays import Positions, Turns, to_numpy
from ...layers import Layer
from ...projection import kv_from_residual
from ...rotary import Rotary
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import small_model, text
from ..routes import passed, stream_of

MOVED = 17


class Still:
    """A rotary table that turns nothing, whatever the position."""

    def __init__(self, rotary: Rotary) -> None:
        self.rotary = rotary

    def __call__(self, positions: Positions) -> tuple[Turns, Turns]:
        return self.rotary(np.zeros(len(positions), dtype=int))


def without_positions(layer: Layer) -> Layer:
    """The same layer, whose queries and keys are not turned."""
    still: Any = Still(layer.rotary)
    return replace(layer, rotary=still)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    layer = model.layers[0]
    nope = without_positions(layer)
    stream = stream_of(model, text())
    here = np.arange(len(text()))
    there = here + MOVED
    keys = [
        to_numpy(kv_from_residual(stream, positions, one)[0])
        for one in (nope, layer)
        for positions in (here, there)
    ]
    values = [to_numpy(kv_from_residual(stream, where, layer)[1]) for where in (here, there)]
    return [
        same("no positions: keys of a moved text", keys[1], keys[0]),
        other("rotations: keys of a moved text", keys[3], keys[2]),
        same("values, in either", values[1], values[0]),
        same(
            "no positions: the stream behind",
            passed(nope, stream, None, there),
            passed(nope, stream),
        ),
        other(
            "rotations: the stream behind",
            passed(layer, stream, None, there),
            passed(layer, stream),
        ),
        other("with and without are two layers", keys[0], keys[2]),
    ]


ENTRY = Entry(
    name="small_thinker",
    title="SmallThinker",
    arxiv="2507.20984",
    kind=Kind.STATE,
    state="the stream",
    verdict=Exactness.EXACT,
    reason="A layer without positions has the same keys and values wherever a text stands; a "
    "layer with rotations has the same values.",
    read="abstract, and the model's code",
    theorems=("T1",),
    demonstrate=demonstrate,
)

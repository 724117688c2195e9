"""Recurrent Transformer: a layer attends to keys and values made from its own outputs.

Oncescu et al. 2026, arXiv 2604.21215. *Rule.* What a token leaves for later ones at layer l is
projected from its stream behind the layer, not before it, while the token itself sees its row from
before the layer; so positions go one after the other, and a tiling makes that cheap.

*Departures.* Weights are random; no tiling.

*Its authors claim* more effective depth and fewer layers at the same quality. *Here:* keys and
values are no function of the stream before the layer, so that a pass over all positions at once,
which is how the theorems replay, gives others. A replay position by position is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...projection import kv_from_residual
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import small_model, text
from ..routes import Given, passed, stream_of


def one_after_the_other(stream: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stream behind layer 0, and the keys and values that each token left."""
    layer = small_model().layers[0]
    keys: list[np.ndarray] = []
    values: list[np.ndarray] = []
    behind = []
    for place in range(len(stream)):
        position = np.array([place])
        own_k, own_v = kv_from_residual(stream[place : place + 1], position, layer)
        memory = Given(
            np.concatenate([*keys, to_numpy(own_k)]), np.concatenate([*values, to_numpy(own_v)])
        )
        out = passed(layer, stream[place : place + 1], memory, position)
        k, v = kv_from_residual(out, position, layer)
        keys.append(to_numpy(k))
        values.append(to_numpy(v))
        behind.append(out)
    return np.concatenate(behind), np.concatenate(keys), np.concatenate(values)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    layer = small_model().layers[0]
    stream = to_numpy(stream_of(small_model(), text()))
    behind, keys, _ = one_after_the_other(stream)
    again, again_keys, _ = one_after_the_other(stream)
    positions = np.arange(len(stream))
    before = to_numpy(kv_from_residual(stream, positions, layer)[0])
    after = to_numpy(kv_from_residual(behind, positions, layer)[0])
    return [
        same("position by position, twice", again, behind),
        same("keys from the layer's own output", after, keys),
        same("and they are the same twice", again_keys, keys),
        other("keys from the stream before the layer", before, keys),
        same("the first token is that of a block", behind[:1], passed(layer, stream)[:1]),
        other("all positions at once", passed(layer, stream)[1:], behind[1:]),
    ]


ENTRY = Entry(
    name="recurrent_transformer",
    title="Recurrent Transformer",
    arxiv="2604.21215",
    kind=Kind.STATE,
    state="the streams behind the layer, one after the other",
    verdict=Exactness.REFUTES,
    reason="Keys and values are projections of the layer's output, so that positions cannot be "
    "made again all at once.",
    cure="replay position by position, from the first token",
    read="abstract, and others' notes of the paper",
    theorems=("T1", "T3"),
    counterexamples=("own_output",),
    demonstrate=demonstrate,
)

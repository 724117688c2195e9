"""Mixture-of-Recursions: one stack of layers again and again, by each token as deep as it needs.

Bae et al. 2025, arXiv 2507.10524. *Rule.* A router says how often each token goes through the
shared layers. Keys and values are made anew for the tokens that are still there, or those of the
first recursion are shared by all.

*Departures.* One layer, `DEPTH` times, where the paper has a layer of its own below and above them;
the router is the sign of a row's first number, where it takes the best of all tokens or lets each
token choose; nothing is trained.

*Its authors claim* a better trade of quality and cost at 135M to 1.7B parameters. *Here:* with
shared keys and values, those at recursion r are no projection of the stream at r, but of the stream
at recursion 1, from which they are made again exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...projection import kv_from_residual
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import small_model, text
from ..routes import Given, by_content, passed, stream_of

DEPTH = 3


def recursions(shared: bool, routed: bool = True) -> list[np.ndarray]:
    """The stream before each recursion and behind the last one."""
    model = small_model()
    layer = model.layers[0]
    streams = [to_numpy(stream_of(model, text()))]
    positions = np.arange(len(text()))
    first = Given(*kv_from_residual(streams[0], positions, layer))
    for _ in range(DEPTH):
        memory = first if shared else None
        behind = passed(layer, streams[-1], memory)
        works = by_content(streams[-1]) if routed else np.ones(len(behind), dtype=bool)
        streams.append(np.where(works[:, None], behind, streams[-1]))
    return streams


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    layer = small_model().layers[0]
    positions = np.arange(len(text()))
    shared = recursions(shared=True)
    used = to_numpy(kv_from_residual(shared[0], positions, layer)[1])
    from_own = to_numpy(kv_from_residual(shared[1], positions, layer)[1])
    replayed = passed(layer, shared[1], Given(*kv_from_residual(shared[0], positions, layer)))
    works = by_content(shared[1])
    return [
        same("recursion 1 is a block", recursions(True, routed=False)[1], passed(layer, shared[0])),
        other("values from the stream of recursion 2", from_own, used),
        same("recursion 2 with rows of recursion 1", replayed[works], shared[2][works]),
        same("tokens that are done stay", shared[2][~works], shared[1][~works]),
        true(
            "some go on, some stay", 0 < works.sum() < len(works), f"{works.sum()} of {len(works)}"
        ),
        other("without sharing", recursions(shared=False)[-1], shared[-1]),
    ]


ENTRY = Entry(
    name="mixture_of_recursions",
    title="Mixture-of-Recursions",
    arxiv="2507.10524",
    kind=Kind.STATE,
    state="the stream at recursion 1, and the one at hand",
    verdict=Exactness.REFUTES,
    reason="Shared keys and values are no projection of the stream at their recursion.",
    cure="project from the stream at recursion 1",
    read="abstract, and the authors' README",
    theorems=("T1",),
    counterexamples=("shared_kv",),
    demonstrate=demonstrate,
)

"""Bytes a token against the time to get its K/V back, over the sets of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..caches import Cache, Full, Residual
from ..decoder import forward
from ..model import Model
from ..progress import Progress, silent
from .accounting import shape_bytes
from .timing import seconds
from .together import fill

Row = dict[str, Any]


def frontier(
    model: Model,
    evicted: int = 256,
    repeats: int = 5,
    checkpoints: Sequence[str | int] | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Decode one token with `evicted` tokens' K/V gone, for each set of checkpoints.

    Recompute time a token is the time of such a step, less the time of the same step with the full
    cache, divided by `evicted`; steps of all sets take turns, and the median of `repeats` is taken.

    Parameters
    ----------
    model : Model
    evicted : int
        Tokens without K/V; the budget is 0.
    repeats : int
    checkpoints : sequence, optional
        As `Residual` takes them; by default every layer, every k-th for k = 2, 3, 5, 10, 15,
        the embedding alone and the token ids alone.

    Returns
    -------
    list of dict
        ``checkpoints``; ``bytes`` a token, counted by the cache; ``gemma_bytes``, the same at
        Gemma 3-4B's shape in bfloat16; ``step_seconds``; ``recompute_seconds`` a token; ``paper``:
        which of the paper's numbers this point is.
    """
    layers = model.config.num_hidden_layers
    weights = model.weights
    if checkpoints is None:
        every_kth = [k for k in (2, 3, 5, 10, 15) if k < layers]
        checkpoints = ["every", *every_kth, "embedding", "tokens"]
    caches: dict[str | int, Cache] = {"K/V": Full(weights)}
    for kept in checkpoints:
        caches[kept] = Residual(weights, budget=0, checkpoints=kept)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, evicted)
    fill(weights, list(caches.values()), ids)
    per_token = {kept: cache.nbytes // evicted for kept, cache in caches.items()}

    def step_and_back(cache: Cache) -> None:
        forward(weights, [[1]], [cache])
        cache.truncate(evicted)

    calls = {kept: partial(step_and_back, cache) for kept, cache in caches.items()}
    step = seconds(calls, repeats, progress)
    paper = {"K/V": "136 KB, standard cache", "embedding": "5 KB, KV-Direct"}
    return [
        {
            "checkpoints": str(kept),
            "bytes": per_token[kept],
            "gemma_bytes": shape_bytes("gemma-3-4b", kept),
            "step_seconds": step[kept],
            "recompute_seconds": (step[kept] - step["K/V"]) / evicted,
            "paper": paper.get(str(kept), ""),
        }
        for kept in caches
    ]

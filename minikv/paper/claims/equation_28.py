"""Equation 28 against algorithm 1: one vector a token for all layers, or one a layer."""

from __future__ import annotations

from ...experiments.accounting import shape_bytes
from ...shapes import shape
from ..claim import Claim, Finding, Setting, Verdict

SHAPE = "gemma-3-4b"
TOKENS = 1024
BUDGETS = (0, 128, 512)


def held(name: str, tokens: int, budget: int, kept: str) -> int:
    """Bytes in bfloat16: K and V of the newest `budget` tokens, `kept` for each token before.

    With one residual it is the paper's equation 28, ``2 B L G d b + (T - B) D b``.

    Examples
    --------
    >>> held("gemma-3-4b", 1024, 128, "embedding") == 2 * 128 * 34 * 4 * 256 * 2 + 896 * 2560 * 2
    True
    """
    kept_whole = min(tokens, budget)
    newest = kept_whole * shape_bytes(name, "K/V")
    return newest + (tokens - kept_whole) * shape_bytes(name, kept)


def run(setting: Setting) -> Finding:
    """Count both readings beside the full cache."""
    full = TOKENS * shape_bytes(SHAPE, "K/V")
    rows = []
    figures = []
    for budget in BUDGETS:
        one = held(SHAPE, TOKENS, budget, "embedding")
        every = held(SHAPE, TOKENS, budget, "every")
        rows.append((budget, full, one, every, one / full, every / full))
        figures.append({"budget": budget, "full": full, "one": one, "every": every})
    layers = shape(SHAPE).num_hidden_layers
    reason = (
        "Equations 24, 25 and 28 count one vector a token for all layers; algorithm 1 stores one "
        f"at each layer, and equation 26 pays for one projection a layer. Of {layers} layers only "
        "the one whose stream was kept follows by a projection (T1); from one vector a token the "
        "others follow by replaying all blocks above it (T5). So the memory of equation 28 has "
        "the cost of replay, and the cost of equation 26 has algorithm 1's memory, which at this "
        "shape is above the full cache's."
    )
    columns = (
        "budget B",
        "full cache (bytes)",
        "equation 28 (bytes)",
        "algorithm 1 (bytes)",
        "equation 28 / full",
        "algorithm 1 / full",
    )
    return Finding(Verdict.ONE_READING, reason, columns, tuple(rows), {"bytes": figures})


CLAIM = Claim(
    id="equation-28",
    where="Equation 28",
    title="Memory is 2 B L G d b + (T - B) D b bytes, and algorithm 1 runs in it",
    says=(
        "with a budget of B tokens, KV-Direct holds K and V of B tokens at all L layers and one "
        "residual for each of the other T - B; algorithm 1 stores, on eviction, a residual per "
        "layer; equation 26 counts one projection a layer to have K and V back."
    ),
    protocol=(
        f"both readings counted at the shape of {SHAPE} in bfloat16, T = {TOKENS}; the budgets are "
        "ours."
    ),
    run=run,
    exact=("bytes",),
)

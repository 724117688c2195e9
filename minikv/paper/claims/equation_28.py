"""Equation 28 against algorithm 1: one vector a token for all layers, or one a layer."""

from __future__ import annotations

from ...experiments.accounting import shape_bytes
from ..claim import Claim, Figures, Finding, Setting, Verdict

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
    columns = (
        "budget B",
        "full cache (bytes)",
        "equation 28 (bytes)",
        "algorithm 1 (bytes)",
        "equation 28 / full",
        "algorithm 1 / full",
    )
    counted = {"bytes": figures}
    return Finding(*told(counted), columns, tuple(rows), counted)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Whether algorithm 1 holds what equation 28 counts, and how that compares with all K and V."""
    counted = figures["bytes"]
    if all(row["every"] == row["one"] for row in counted):
        return Verdict.REPRODUCED, "Algorithm 1 holds what equation 28 counts."
    above = sum(row["every"] > row["full"] for row in counted)
    return Verdict.ONE_READING, (
        "Equations 24, 25 and 28 count one vector a token for all layers; algorithm 1 stores one "
        "at each layer, and equation 26 pays for one projection a layer. A projection of one "
        "vector gives K and V of the layer whose stream it is, and not of the others (T1), which "
        "follow by replaying the blocks between (T5). So the memory of equation 28 goes with the "
        "cost of replay, and the cost of equation 26 with algorithm 1's memory, which at this "
        f"shape is above the full cache's at {above} of {len(counted)} budgets."
    )


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
        f"both readings counted at the shape of {SHAPE} in bfloat16, T = {TOKENS}, at budgets of "
        f"{', '.join(map(str, BUDGETS))}, which are ours."
    ),
    run=run,
    told=told,
    exact=("bytes",),
)

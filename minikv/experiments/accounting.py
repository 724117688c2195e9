"""Memory over a conversation of 20 turns (claim 6 of the paper), counted at a model's shape."""

from __future__ import annotations

from collections.abc import Sequence

from ..caches.residual import checkpoint_layers
from ..config import ModelConfig
from ..shapes import per_token, shape

PAPER_FULL = 103
"""MB that the paper's full cache holds at the end, at the shape of Gemma 3-4B."""
PAPER_DIRECT = 42
"""MB that its KV-Direct holds then."""
PAPER_TURNS = 20

TOKEN_ID_BYTES = 4

Row = dict[str, object]


def shape_bytes(model: str | ModelConfig, kept: str | int) -> int:
    """Bytes that a token keeps at a model's shape in bfloat16: ``"K/V"``, or checkpoints.

    Examples
    --------
    >>> shape_bytes("gemma-3-4b", "K/V"), shape_bytes("gemma-3-4b", "embedding")
    (139264, 5120)
    """
    config = model
    if isinstance(config, str):
        config = shape(config)
    if kept == "K/V":
        return config.kv_bytes_per_token("bfloat16")
    if kept == "tokens":
        return TOKEN_ID_BYTES
    checkpoints = len(checkpoint_layers(kept, config.num_hidden_layers))
    return checkpoints * config.residual_bytes_per_token("bfloat16")


def accounting(name: str, budgets: Sequence[int] | None = None) -> tuple[list[Row], str]:
    """Bytes held at a model's shape, turn by turn: full cache, and KV-Direct by budget.

    The conversation has as many tokens as make up the paper's 103 MB (of 2**20 bytes) at Gemma
    3-4B's shape, evenly over 20 turns. KV-Direct keeps one residual a token. Working memory is left
    out. The default budgets are 32, 128 and the one at which KV-Direct holds the paper's 42 MB.

    Returns
    -------
    rows, note
        Rows like `memory`'s, and what a reader should know about them.

    Examples
    --------
    >>> rows, _ = accounting("gemma-3-4b", [128])
    >>> rows[-2:]
    [{'setting': 'full', 'turn': 20, 'tokens': 776, 'bytes': 108068864},
     {'setting': 'residual@128', 'turn': 20, 'tokens': 776, 'bytes': 21798912}]
    """
    config = shape(name)
    kv = shape_bytes(config, "K/V")
    residual = shape_bytes(config, "embedding")
    paper = paper_budget(2**20)
    rows: list[Row] = []
    for turn in range(1, PAPER_TURNS + 1):
        seen = round(paper["tokens"] * turn / PAPER_TURNS)
        held = {"full": seen * kv}
        for budget in budgets or (32, 128, paper["budget"]):
            held[f"residual@{budget}"] = min(seen, budget) * kv + seen * residual
        rows += [
            {"setting": setting, "turn": turn, "tokens": seen, "bytes": size}
            for setting, size in held.items()
        ]
    return rows, _note(name, config)


def _note(name: str, config: ModelConfig) -> str:
    lines = [
        f"{name} in bfloat16: K and V of a token {shape_bytes(config, 'K/V'):,} bytes, "
        f"one residual {shape_bytes(config, 'embedding'):,}, one at every layer "
        f"{shape_bytes(config, 'every'):,}.",
        "Bytes held after each turn, without working memory: K and V of the newest `budget` "
        "tokens, one residual for each.",
    ]
    if config.sliding_window:
        figures = per_token(config)
        lines += [
            "K and V count at all layers, as in the paper. After "
            f"{config.sliding_window} tokens the sliding ones need "
            f"{figures['window_kv']['bfloat16']:,} bytes and no more, "
            f"the others {figures['unbounded_kv']['bfloat16']:,} a token.",
        ]
    for said, megabyte in (("10^6", 10**6), ("2^20", 2**20)):
        paper = paper_budget(megabyte)
        lines.append(
            f"With MB = {said} bytes, the paper's {PAPER_FULL} MB are {paper['tokens']} tokens of "
            f"Gemma 3-4B, and {PAPER_DIRECT} MB is a budget of {paper['budget']}."
        )
    lines.append("Our accounting: the paper states neither layout nor length nor its MB.")
    return "\n".join(lines)


def paper_budget(megabyte: int) -> dict[str, int]:
    """The tokens that 103 MB of full cache are, and the budget at which KV-Direct holds 42 MB.

    Examples
    --------
    >>> paper_budget(10**6)
    {'tokens': 740, 'budget': 274}
    """
    kv = shape_bytes("gemma-3-4b", "K/V")
    residual = shape_bytes("gemma-3-4b", "embedding")
    tokens = round(PAPER_FULL * megabyte / kv)
    return {"tokens": tokens, "budget": (PAPER_DIRECT * megabyte - tokens * residual) // kv}

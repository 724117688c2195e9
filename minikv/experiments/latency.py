"""Reading K/V through attention against recomputing them first (claim 8 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arithmetic import Sight
from ..config import ModelConfig
from ..errors import InputError
from ..layers import Layer
from ..model import Model
from ..projection import kv_from_residual
from . import Progress, seconds, silent

BATCHES, LENGTHS, MOST_TOKENS = (1, 4, 16), (128, 512, 2048), 8192


def latency(
    model: Model,
    batches: Sequence[int] = BATCHES,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = 5,
    most_tokens: int = MOST_TOKENS,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Attention of one new token a sequence, over K/V that are there or are made on the spot.

    All blocks take their turn, each with K/V and residuals of its own, as in decoding, so that a
    working set larger than the processor's cache is read from memory. Recomputing starts from the
    residual at the block itself, the cheapest recomputation there is: one projection. A sliding
    block reads, or makes, only the newest tokens that its window reaches.

    Parameters
    ----------
    model : Model
    batches, lengths : sequence of int
        Sequences, and tokens of each; pairs beyond `most_tokens` in all are left out.
    repeats : int
        The two operations take turns; medians.

    Returns
    -------
    list of dict
        For one block, the mean of all: ``read_seconds``, ``recompute_seconds`` (attention
        included), ``ratio`` (below 1 where recomputing wins), and each operation's flop/byte, see
        `intensity`.
    """
    cases = [
        (batch, length) for batch in batches for length in lengths if batch * length <= most_tokens
    ]
    if not cases:
        raise InputError(f"every batch * length is above {most_tokens} tokens: lower one of them")
    rows, layers, size = [], len(model.layers), np.dtype(model.arithmetic.dtype).itemsize
    for number, (batch, length) in enumerate(cases):
        calls = _calls(model, batch, length)
        calls["read"]()  # warm up
        taken = seconds(calls, repeats)
        rows.append(
            {
                "batch": batch,
                "length": length,
                "read_seconds": taken["read"] / layers,
                "recompute_seconds": taken["recompute"] / layers,
                "ratio": taken["recompute"] / taken["read"],
                **intensity(model.config, batch, length, size),
            }
        )
        progress("latency", (number + 1) / len(cases))
    return rows


def intensity(config: ModelConfig, batch: int, length: int, itemsize: int) -> dict[str, float]:
    """Floating-point operations for each byte read, of one block, by formula; the mean of all.

    Reading: ``4 H d`` operations and ``2 G d`` numbers a token. Recomputing: ``4 D G d`` operations
    more, and ``D`` numbers a token in place of them, and the two weight matrices once. Tokens count
    up to a block's window. Norms, biases, RoPE and softmax are left out, and K/V made are taken to
    stay in the processor's cache.

    Examples
    --------
    >>> import minikv
    >>> intensity(minikv.tiny_config(), batch=1, length=100, itemsize=4)
    {'read_intensity': 1.0, 'recompute_intensity': 10.48}
    """
    layers, kv = config.num_hidden_layers, 2 * config.num_key_value_heads * config.head_dim
    tokens = batch * sum(_seen(config, layer, length) for layer in range(layers)) / layers
    attend = 4 * config.attention_width * tokens
    project = 2 * config.hidden_size * kv * tokens
    read_bytes = tokens * kv * itemsize
    recompute_bytes = (tokens + kv) * config.hidden_size * itemsize
    return {
        "read_intensity": round(attend / read_bytes, 2),
        "recompute_intensity": round((attend + project) / recompute_bytes, 2),
    }


def _seen(config: ModelConfig, layer: int, length: int) -> int:
    """How many tokens the last of a text attends to."""
    return min(length, config.window(layer) or length)


def _calls(model: Model, batch: int, length: int) -> dict[str, Callable[[], None]]:
    """The two operations over all blocks."""
    config, arithmetic, xp = model.config, model.arithmetic, model.arithmetic.xp
    rng, heads = np.random.default_rng(0), (config.num_key_value_heads, config.head_dim)

    def random(*shape: int) -> Any:
        return xp.asarray(rng.standard_normal(shape, dtype=np.float32), dtype=arithmetic.dtype)

    def attend(kv: Any, layer: Layer, at: np.ndarray) -> None:
        k, v = (xp.reshape(part, (batch, len(at), *heads)) for part in kv)
        for row in range(batch):
            sight = Sight(at[-1:], at, layer.window)
            arithmetic.attention(q[row], k[row], v[row], sight, config.attention_scale)

    q = random(batch, 1, config.num_attention_heads, config.head_dim)
    seen = [np.arange(length - _seen(config, i, length), length) for i in range(len(model.layers))]
    stream = [
        (random(batch * len(at), config.hidden_size), np.tile(at, batch), layer)
        for at, layer in zip(seen, model.layers, strict=True)
    ]
    cached = [kv_from_residual(*rows) for rows in stream]

    def read() -> None:
        for kv, at, layer in zip(cached, seen, model.layers, strict=True):
            attend(kv, layer, at)

    def recompute() -> None:
        for rows, at in zip(stream, seen, strict=True):
            attend(kv_from_residual(*rows), rows[2], at)

    return {"read": read, "recompute": recompute}


def verdict(config: ModelConfig, rows: Sequence[dict[str, Any]]) -> str:
    """Whether, and where, recomputing wins; and whether it could where arithmetic costs nothing."""
    wins = [f"batch {row['batch']}, length {row['length']}" for row in rows if row["ratio"] < 1]
    ratios = [row["ratio"] for row in rows]
    width, kv = config.hidden_size, 2 * config.num_key_value_heads * config.head_dim
    said = f"recomputing is slower everywhere here: {min(ratios):.1f} to {max(ratios):.1f} times"
    if wins:
        said = f"recomputing is faster at {'; '.join(wins)}"
    could = f"win at most {kv / width:.2g} times" if width < kv else "not win"
    return (
        f"{said}. A residual has {width} numbers, K and V of one block {kv}: by bytes read, "
        f"recomputing could {could} even if arithmetic cost nothing"
    )

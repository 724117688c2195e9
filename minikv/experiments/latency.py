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
from ..progress import Progress, silent
from ..projection import kv_from_residual
from .timing import seconds

BATCHES = (1, 4, 16)
LENGTHS = (128, 512, 2048)
MOST_TOKENS = 8192
Row = dict[str, Any]
KV = tuple[Any, Any]


def latency(
    model: Model,
    batches: Sequence[int] = BATCHES,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = 5,
    most_tokens: int = MOST_TOKENS,
    progress: Progress = silent,
) -> list[Row]:
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
    layers = len(model.layers)
    itemsize = np.dtype(model.arithmetic.dtype).itemsize
    rows = []
    for batch, length in cases:
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
                **intensity(model.config, batch, length, itemsize),
            }
        )
        progress("latency", len(rows), len(cases))
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
    layers = config.num_hidden_layers
    kv = 2 * config.num_key_value_heads * config.head_dim
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
    blocks = [_Block(model, layer, batch, length) for layer in model.layers]

    def read() -> None:
        for block in blocks:
            block.attend(block.cached)

    def recompute() -> None:
        for block in blocks:
            block.attend(block.keys_and_values())

    return {"read": read, "recompute": recompute}


class _Block:
    """Random queries of one token a sequence, and what one block holds of all the tokens before."""

    def __init__(self, model: Model, layer: Layer, batch: int, length: int) -> None:
        config = model.config
        seen = _seen(config, layer.index, length)
        self.layer = layer
        self.arithmetic = model.arithmetic
        self.scale = config.attention_scale
        self.positions = np.arange(length - seen, length)  # that the last token sees
        self.sight = Sight(self.positions[-1:], self.positions, layer.window)
        self.residuals = self._random(batch * seen, config.hidden_size)
        self.queries = self._random(batch, 1, config.num_attention_heads, config.head_dim)
        self.rows = (batch, seen, config.num_key_value_heads, config.head_dim)
        self.cached = self.keys_and_values()

    def keys_and_values(self) -> KV:
        """Made from the residuals, ``(B, T, G, d)`` both."""
        positions = np.tile(self.positions, len(self.queries))
        k, v = kv_from_residual(self.residuals, positions, self.layer)
        reshape = self.arithmetic.xp.reshape
        return reshape(k, self.rows), reshape(v, self.rows)

    def attend(self, kv: KV) -> None:
        """Attention of the last token of each sequence."""
        for q, k, v in zip(self.queries, *kv, strict=True):
            self.arithmetic.attention(q, k, v, self.sight, self.scale)

    def _random(self, *shape: int) -> Any:
        xp = self.arithmetic.xp
        numbers = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return xp.asarray(numbers, dtype=self.arithmetic.dtype)


def verdict(config: ModelConfig, rows: Sequence[Row]) -> str:
    """Whether, and where, recomputing wins; and whether it could where arithmetic costs nothing."""
    ratios = [row["ratio"] for row in rows]
    wins = [f"batch {row['batch']}, length {row['length']}" for row in rows if row["ratio"] < 1]
    if wins:
        said = f"recomputing is faster at {'; '.join(wins)}"
    else:
        said = (
            f"recomputing is slower everywhere here: {min(ratios):.1f} to {max(ratios):.1f} times"
        )
    width = config.hidden_size
    kv = 2 * config.num_key_value_heads * config.head_dim
    could = "not win"
    if width < kv:
        could = f"win at most {kv / width:.2g} times"
    return (
        f"{said}. A residual has {width} numbers, K and V of one block {kv}: by bytes read, "
        f"recomputing could {could} even if arithmetic cost nothing"
    )

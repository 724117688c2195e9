"""The parts of a block: RMSNorm, rotary positions, attention, SwiGLU. Pure functions.

Shapes are token-major and use the letters of `minikv.config`. Anything that adds across elements
is asked of an `Arithmetic`; the rest is elementwise, done in ``arithmetic.wide`` and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import numpy as np

from .arithmetic import Arithmetic, Array
from .config import ModelConfig
from .errors import ArithmeticRangeError

Hook = Callable[[str, Array], Array]
_QUERY_BLOCK = 32  # queries per attention block: its scores then fit in the processor's cache


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """The weights of one block, under Hugging Face's names, and what is needed to use them.

    Matrices that read the same rows are stacked: one long product is faster than two short ones.
    """

    index: int
    config: ModelConfig
    arithmetic: Arithmetic
    rotary: Rotary
    input_layernorm: Array  # (D,)
    qkv_proj: Any  # (H*d + 2*G*d, D): q_proj, k_proj, v_proj; as prepared by Arithmetic.weight
    o_proj: Any  # (D, H*d)
    pre_mlp_layernorm: Array  # (D,): what reads the stream for the MLP, whatever its file calls it
    gate_up_proj: Any  # (2*F, D): gate_proj above up_proj
    down_proj: Any  # (D, F)
    qkv_bias: Array | None = None  # (H*d + 2*G*d,)
    q_norm: Array | None = None  # (d,)
    k_norm: Array | None = None  # (d,)
    post_attention_layernorm: Array | None = None  # (D,)
    post_feedforward_layernorm: Array | None = None  # (D,)

    @property
    def window(self) -> int | None:
        """How many positions, its own included, a token sees here; None for all."""
        return self.config.window(self.index)


def rms_norm(x: Array, weight: Array | None, eps: float, arithmetic: Arithmetic) -> Array:
    """x / sqrt(mean(x**2) + eps) * weight over the last axis; x itself where there is no weight.

    Zhang and Sennrich 2019, arXiv 1910.07467, equation 4.
    """
    if weight is None:
        return x
    if fused := getattr(arithmetic, "rms_norm", None):
        return fused(x, weight, eps)
    scale = arithmetic.xp.sqrt(arithmetic.mean_square(x) + eps)
    return arithmetic.narrow(arithmetic.widen(x) / scale * weight)


def rope_frequencies(config: ModelConfig, local: bool = False) -> np.ndarray:
    """Radians per position of each pair of a head, ``theta**(-2i/d)``; float32 ``(d/2,)``.

    Su et al. 2021, arXiv 2104.09864, equation 15, with the scaling where configured: Llama 3's
    (long wavelengths are stretched by `factor`, short ones kept, those between interpolated) or a
    linear one. `local` asks for those of the sliding layers, where they have a base of their own.
    The power is taken in decimal arithmetic, whose result does not depend on the platform's math
    library.
    """
    context = Context(prec=40)
    base = config.rope_local_base_freq if local else None
    theta, d = Decimal(base or config.rope_theta), config.head_dim
    exact = [context.power(theta, context.divide(Decimal(-i), Decimal(d))) for i in range(0, d, 2)]
    frequencies = np.array([float(f) for f in exact])
    scaling = config.rope_scaling
    if scaling is not None and not base:
        kept = np.zeros(1)
        if (low := scaling.low_freq_factor) and (high := scaling.high_freq_factor):
            context_length = scaling.original_max_position_embeddings or 0
            turns = context_length * frequencies / (2 * math.pi)
            kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = frequencies * (kept + (1 - kept) / scaling.factor)
    return frequencies.astype(np.float32)


class Rotary:
    """Cosines and sines of ``position * frequency``, in a table that grows by doubling.

    As in transformers, the angle is a float32 product; its cosine and sine are then taken in
    float64 and kept in ``arithmetic.wide``. A row holds each cosine twice, (c, c), and each sine
    with both signs, (-s, s), so that `rope` turns both halves of a head at once.
    """

    def __init__(self, config: ModelConfig, arithmetic: Arithmetic, local: bool = False) -> None:
        self._arithmetic = arithmetic
        self._frequencies = rope_frequencies(config, local)
        self._table = self._made(1)

    def __call__(self, positions: np.ndarray) -> tuple[Array, Array]:
        """``(T,)`` positions -> cosines and signed sines, each ``(T, 1, d)``."""
        one = len(positions) == 1
        last = int(positions[0]) if one else int(positions.max(initial=0))
        cos, sin = self._table  # one attribute: another thread may replace it meanwhile
        if last >= cos.shape[0]:
            cos, sin = self._table = self._made(1 << last.bit_length())
        if one:  # no copy for the step of a decode
            return cos[last : last + 1, ...], sin[last : last + 1, ...]
        xp = self._arithmetic.xp
        rows = xp.asarray(positions)
        return xp.take(cos, rows, axis=0), xp.take(sin, rows, axis=0)

    def _made(self, length: int) -> tuple[Array, Array]:
        angle = np.arange(length, dtype=np.float32)[:, None, None] * self._frequencies
        if not (largest := angle.max()) <= 2**20:
            raise ArithmeticRangeError(
                f"position {length - 1} turns by {largest:g} radians, "
                "expected at most 2**20: see rope_theta"
            )
        xp = self._arithmetic.xp
        angle = xp.asarray(angle.astype(np.float64))
        cos, sin = self._arithmetic.cos(angle), self._arithmetic.sin(angle)
        return xp.concat([cos, cos], axis=-1), xp.concat([-sin, sin], axis=-1)


def rope(x: Array, cos_sin: tuple[Array, Array], arithmetic: Arithmetic) -> Array:
    """Turn pair (i, i + d/2) of each head by its angle (rotate-half form); ``(T, heads, d)``."""
    xp = arithmetic.xp
    cos, sin = cos_sin
    if fused := getattr(arithmetic, "rope", None):
        return fused(x, cos, sin)
    half = x.shape[-1] // 2
    x = arithmetic.widen(x)
    turned = xp.concat([x[..., half:], x[..., :half]], axis=-1)
    turned *= sin
    turned += x * cos
    return arithmetic.narrow(turned)


def attention(
    q: Array,
    k: Array,
    v: Array,
    query_positions: np.ndarray,
    key_positions: np.ndarray,
    arithmetic: Arithmetic,
    scale: float,
    window: int | None = None,
    hooks: tuple[Callable[[Array], Array], Callable[[Array], Array]] | None = None,
    observe: Callable[[np.ndarray, Array], None] | None = None,
) -> Array:
    """softmax(scale * q k^T + mask) v, with each K/V head shared by R = H / G query heads.

    Vaswani et al. 2017, arXiv 1706.03762, equation 1; Ainslie et al. 2023, arXiv 2305.13245.

    Parameters
    ----------
    q : (T, H, d)
    k, v : (S, G, d)
    query_positions : (T,) int, ascending
    key_positions : (S,) int, or (S, G) where heads hold different tokens; ascending over S
        A query sees the keys at positions up to its own.
    scale : float
        Of the scores; usually ``1 / sqrt(d)``.
    window : int, optional
        A query sees no key that is this many positions before it, or more.
    hooks : pair of callables, optional
        See and may replace the ``(H, T, S)`` scores and weights. All queries are then one block;
        otherwise they go block by block, so that memory does not grow with T * S.
    observe : callable, optional
        ``observe(query_positions, weights)``, once a block.

    Returns
    -------
    (T, H, d)
    """
    if hooks is None and observe is None and (fused := getattr(arithmetic, "attention", None)):
        z = fused(q, k, v, query_positions, key_positions, scale, window)
        if z is not None:
            return z
    xp, tokens = arithmetic.xp, q.shape[0]
    k, v = arithmetic.widen(k), arithmetic.values(v)
    step = _QUERY_BLOCK if hooks is None else tokens
    blocks = []
    for start in range(0, tokens, step):
        stop = min(start + step, tokens)
        rows, first, seen = query_positions[start:stop], 0, key_positions.shape[0]
        if hooks is None and key_positions.ndim == 1:  # leave out keys that would weigh nothing
            seen = int(key_positions.searchsorted(rows[-1], "right"))
            if window is not None and observe is None:
                first = int(key_positions.searchsorted(rows[0] - window, "right"))
        at = key_positions[first:seen].T[..., None, :]  # (1, S) or (G, 1, S)
        scores = arithmetic.scores(q[start:stop, ...], k[first:seen, ...], scale)
        oldest = -1 if window is None else rows[-1] - window
        if at[..., -1].max() > rows[0] or at[..., 0].min() <= oldest:
            hidden = at > rows[:, None]
            if window is not None:
                hidden |= at <= rows[:, None] - window
            if hidden.ndim == 3:
                hidden = hidden.repeat(q.shape[1] // k.shape[1], axis=0)
            minus_inf = xp.asarray(-math.inf, dtype=scores.dtype)
            scores = xp.where(xp.asarray(hidden), minus_inf, scores)
        if hooks is not None:
            scores = hooks[0](scores)
        pattern = arithmetic.softmax(scores)
        if hooks is not None:
            pattern = hooks[1](pattern)
        if observe is not None:
            observe(rows, pattern)
        blocks.append(arithmetic.weighted_sum(pattern, v[first:seen, ...]))
    return blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=0)


def gated(gate: Array, up: Array, activation: str, arithmetic: Arithmetic) -> Array:
    """activation(gate) * up; ``(T, F), (T, F) -> (T, F)``.

    Both activations are x / (1 + exp(-y)). SiLU has y = x; the tanh approximation of GELU, 0.5 x
    (1 + tanh(z)) with z = sqrt(2/pi) (x + 0.044715 x**3), is that with y = 2 z. Shazeer 2020, arXiv
    2002.05202, equations 5 and 6; Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2.
    """
    if fused := getattr(arithmetic, "gated", None):
        return fused(gate, up, activation)
    x = arithmetic.widen(gate)
    y = x if activation == "silu" else (x * x * 0.044715 + 1.0) * x * math.sqrt(8 / math.pi)
    denominator = arithmetic.exp(-y)
    denominator += 1.0
    out = x / denominator
    out *= up
    return arithmetic.narrow(out)

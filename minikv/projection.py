"""Keys and values from the residual stream: the one function that theorem T1 is about."""

from __future__ import annotations

import numpy as np

from .arithmetic import Array
from .layers import Hook, Layer, rms_norm, rope


def kv_from_residual(
    residuals: Array,
    positions: np.ndarray,
    layer: Layer,
    normalized: Array | None = None,
    hook: Hook | None = None,
) -> tuple[Array, Array]:
    """Project residual-stream rows to the keys and values that attention reads.

    This is the only place where K and V are made: prefill, decoding and recomputation all call it.
    Row t of the result depends on row t of `residuals` and on ``positions[t]``, on nothing else.

    Parameters
    ----------
    residuals : (T, D)
        ``blocks.{l}.hook_resid_pre`` of some tokens, in any order.
    positions : (T,) int
        Their positions in the text.
    layer : Layer
        Block l.
    normalized : (T, D), optional
        ``rms_norm(residuals)`` where the caller has it already.
    hook : callable, optional
        Sees and may replace ``attn.hook_k``, ``attn.hook_v`` and ``attn.hook_rot_k``.

    Returns
    -------
    k, v : (T, G, d)
        Keys with their rotary positions, and values.
    """
    arithmetic, config, xp = layer.arithmetic, layer.config, layer.arithmetic.xp
    if normalized is None:
        normalized = rms_norm(residuals, layer.input_layernorm, config.rms_norm_eps, arithmetic)
    heads = (residuals.shape[0], config.num_key_value_heads, config.head_dim)
    k = xp.reshape(arithmetic.linear(normalized, layer.k_proj), heads)
    v = xp.reshape(arithmetic.linear(normalized, layer.v_proj), heads)
    if hook is not None:
        k = hook(f"blocks.{layer.index}.attn.hook_k", k)
        v = hook(f"blocks.{layer.index}.attn.hook_v", v)
    k = rope(k, layer.rotary(positions), arithmetic)
    if hook is not None:
        k = hook(f"blocks.{layer.index}.attn.hook_rot_k", k)
    return arithmetic.settle(k), arithmetic.settle(v)

"""Keys and values from the residual stream: the one function that theorem T1 is about."""

from __future__ import annotations

import numpy as np

from .arithmetic import Array
from .layers import Hook, Layer, rms_norm, rope


def kv_from_residual(
    residuals: Array,
    positions: np.ndarray,
    layer: Layer,
    projected: Array | None = None,
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
    projected : (T, 2*G*d), optional
        The rows' product with k_proj and v_proj, by `project`, where the caller has it already:
        new tokens get it together with their queries.
    hook : callable, optional
        Sees and may replace ``attn.hook_k``, ``attn.hook_v`` and ``attn.hook_rot_k``.

    Returns
    -------
    k, v : (T, G, d)
        Keys with their rotary positions, and values.
    """
    arithmetic, config, xp = layer.arithmetic, layer.config, layer.arithmetic.xp
    if projected is None:
        normalized = rms_norm(residuals, layer.input_layernorm, config.rms_norm_eps, arithmetic)
        projected = project(normalized, layer, config.attention_width)
    both = (residuals.shape[0], 2, config.num_key_value_heads, config.head_dim)
    kv = xp.reshape(projected, both)
    k, v = kv[:, 0, ...], kv[:, 1, ...]
    if hook is not None:
        k = hook(f"blocks.{layer.index}.attn.hook_k", k)
        v = hook(f"blocks.{layer.index}.attn.hook_v", v)
    k = rms_norm(k, layer.k_norm, config.rms_norm_eps, arithmetic)
    k = rope(k, layer.rotary(positions), arithmetic)
    if hook is not None:
        k = hook(f"blocks.{layer.index}.attn.hook_rot_k", k)
    return arithmetic.settle(k), arithmetic.settle(v)


def project(normalized: Array, layer: Layer, start: int = 0) -> Array:
    """``(T, D) -> (T, N)``: rows `start` and up of q_proj, k_proj, v_proj and their bias."""
    out = layer.arithmetic.linear(normalized, layer.qkv_proj[start:, ...])
    return out if layer.qkv_bias is None else out + layer.qkv_bias[start:]

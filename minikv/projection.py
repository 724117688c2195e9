"""Queries, keys and values: three projections of the residual stream."""

from __future__ import annotations

from .arrays import Array, NewKeys, NewValues, Positions, Queries, Stream, shaped
from .layers import Hook, Layer, no_hook


@shaped
def kv_from_residual(
    residuals: Stream, positions: Positions, layer: Layer, hook: Hook = no_hook
) -> tuple[NewKeys, NewValues]:
    """Project residual-stream rows to the keys and values that attention reads.

    This is the only place where K and V are made: prefill, decoding and recomputation all call it,
    and it is what theorem T1 is about. Row t of the result depends on row t of `residuals` and on
    ``positions[t]``, on nothing else.

    Parameters
    ----------
    residuals : (T, D)
        ``blocks.{l}.hook_resid_pre`` of some tokens, in any order.
    positions : (T,) int
        Their positions in the text.
    layer : Layer
        Block l.
    hook : callable
        Sees and may replace ``ln1.hook_normalized``, ``attn.hook_k``, ``attn.hook_rot_k`` and
        ``attn.hook_v``.

    Returns
    -------
    k, v : (T, G, d)
        Keys with their rotary positions, and values.
    """
    x = normalized(residuals, layer, hook)  # (T, D)
    k, v = layer.linears(x, layer.k_proj, layer.v_proj)  # (T, G*d)
    k = hook("attn.hook_k", layer.heads(k, layer.k_bias))  # (T, G, d)
    v = layer.heads(v, layer.v_bias)  # (T, G, d)
    k = layer.turned(layer.norm(k, layer.k_norm), positions)
    return settled(k, "attn.hook_rot_k", layer, hook), settled(v, "attn.hook_v", layer, hook)


@shaped
def queries(residuals: Stream, positions: Positions, layer: Layer, hook: Hook = no_hook) -> Queries:
    """What each token asks with, ``(T, D) -> (T, H, d)``.

    Queries are on no grid yet, unlike keys: nobody keeps them, and `Arithmetic.scores` rounds them.
    """
    x = normalized(residuals, layer, hook)  # (T, D)
    q = layer.linear(x, layer.q_proj)  # (T, H*d)
    q = hook("attn.hook_q", layer.heads(q, layer.q_bias))  # (T, H, d)
    q = layer.turned(layer.norm(q, layer.q_norm), positions)
    return hook("attn.hook_rot_q", q)


def normalized(residuals: Stream, layer: Layer, hook: Hook) -> Stream:
    """The rows as attention reads them, ``(T, D)``.

    It is done for the queries, and again for keys and values, so that these two are a function of
    the stream and of nothing that was made on the way to the queries.
    """
    return hook("ln1.hook_normalized", layer.norm(residuals, layer.input_layernorm))


def settled(x: NewKeys, name: str, layer: Layer, hook: Hook) -> NewKeys:
    """K or V on the grid that attention sums on, after the hook of that name.

    The hook sees what attention would read. What it returns instead need not be on the grid, so
    that it is moved there too.
    """
    x = layer.arithmetic.settle(x)
    seen: Array = hook(name, x)
    return x if seen is x else layer.arithmetic.settle(seen)

"""The forward pass, written as the residual stream.

::

    tokens -> embedding -> stream -> [ read the stream, add to the stream ] x L -> norm -> logits

Every activation passes once through ``hook(name, value)`` under the name that TransformerLens
gives it; a hook may look, or return a replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .arithmetic import Arithmetic, Array
from .checks import check_cache, check_ids
from .config import ModelConfig
from .errors import ArithmeticRangeError, InputError
from .layers import Hook, Layer, attention, gated, rms_norm, rope
from .projection import kv_from_residual, project

if TYPE_CHECKING:
    from .caches import Cache


def no_hook(name: str, value: Array) -> Array:
    """The hook that does nothing."""
    return value


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """Everything learned: embedding, blocks, final norm, output matrix."""

    config: ModelConfig
    arithmetic: Arithmetic
    embed_tokens: Array  # (V, D)
    layers: tuple[Layer, ...]
    norm: Array  # (D,)
    lm_head: Any  # (V, D), as prepared by Arithmetic.weight


@dataclass(frozen=True)
class Span:
    """The rows of one sequence among the rows of a call."""

    rows: slice
    positions: np.ndarray  # (T,) int
    cache: Cache | None = None
    new: int = 0  # how many of the rows, at their end, are new tokens


def forward(
    weights: Weights,
    sequences: Sequence[Sequence[int] | np.ndarray],
    caches: Sequence[Cache | None] | None = None,
    logits: str = "last",
    hook: Hook = no_hook,
) -> Array | None:
    """Run new tokens of one or more sequences through the decoder.

    A batch is more rows: the tokens of all sequences are stacked, without padding, and only
    attention looks at which rows belong together.

    Parameters
    ----------
    weights : Weights
    sequences : sequence of token ids
        New tokens of each sequence; lengths may differ.
    caches : sequence of Cache or None, optional
        The memory of each sequence. Without one, the tokens are a whole text of their own.
    logits : {"last", "all", "none"}
        For which rows to compute logits: each sequence's last, every one, or none at all.
    hook : callable
        ``hook(name, value) -> value`` for every activation. What a residual cache recomputes
        passes none: with a hook that changes values, it is not the full cache.

    Returns
    -------
    (rows, V) or None
        Logits in ``arithmetic.dtype``; None for ``logits="none"``.

    Raises
    ------
    InputError
        If a sequence is empty, holds an id outside the vocabulary, or outgrows the context, or
        if a cache is of another model or given twice.
    """
    if logits not in ("last", "all", "none"):
        raise InputError(f"logits is {logits!r}; choose 'last', 'all' or 'none'")
    ids, spans = _stack(weights, sequences, caches)
    positions = np.concatenate([span.positions for span in spans])
    x = hook("hook_embed", embed(weights, ids))
    for layer in weights.layers:
        x = block(layer, x, positions, spans, hook)
    out = None
    if logits != "none":
        rows = [
            np.arange(span.rows.stop - (1 if logits == "last" else span.new), span.rows.stop)
            for span in spans
        ]
        xp = weights.arithmetic.xp
        out = unembed(weights, xp.take(x, xp.asarray(np.concatenate(rows)), axis=0), hook)
    for span in spans:
        if span.cache is not None:
            span.cache.advance(span.new)
    return out


def embed(weights: Weights, ids: np.ndarray) -> Array:
    """``(T,) int -> (T, D)``: the stream before block 0."""
    xp = weights.arithmetic.xp
    x = xp.take(weights.embed_tokens, xp.asarray(ids), axis=0)
    return x * weights.config.embedding_scale if weights.config.family.scaled_embedding else x


def block(
    layer: Layer,
    resid_pre: Array,
    positions: np.ndarray,
    spans: Sequence[Span],
    hook: Hook = no_hook,
) -> Array:
    """One block: attention reads the stream and adds to it, then the MLP does.

    ``(T, D) -> (T, D)``: resid_pre -> resid_mid -> resid_post.
    """
    config, arithmetic, xp = layer.config, layer.arithmetic, layer.arithmetic.xp
    name, eps, tokens = f"blocks.{layer.index}.", config.rms_norm_eps, resid_pre.shape[0]
    try:
        resid_pre = hook(name + "hook_resid_pre", resid_pre)
        x = rms_norm(resid_pre, layer.input_layernorm, eps, arithmetic)
        x = hook(name + "ln1.hook_normalized", x)
        qkv, width = project(x, layer), config.attention_width
        q = xp.reshape(qkv[:, :width], (tokens, config.num_attention_heads, config.head_dim))
        q = rms_norm(hook(name + "attn.hook_q", q), layer.q_norm, eps, arithmetic)
        q = hook(name + "attn.hook_rot_q", rope(q, layer.rotary(positions), arithmetic))
        k, v = kv_from_residual(resid_pre, positions, layer, qkv[:, width:], hook)
        z = hook(name + "attn.hook_z", _attend(layer, resid_pre, q, k, v, spans, hook))
        attn_out = arithmetic.linear(xp.reshape(z, (tokens, -1)), layer.o_proj)
        attn_out = rms_norm(attn_out, layer.post_attention_layernorm, eps, arithmetic)
        resid_mid = resid_pre + hook(name + "hook_attn_out", attn_out)

        resid_mid = hook(name + "hook_resid_mid", resid_mid)
        x = rms_norm(resid_mid, layer.pre_mlp_layernorm, eps, arithmetic)
        x = hook(name + "ln2.hook_normalized", x)
        gate_up = arithmetic.linear(x, layer.gate_up_proj)
        gate = hook(name + "mlp.hook_pre", gate_up[:, : config.intermediate_size])
        up = hook(name + "mlp.hook_pre_linear", gate_up[:, config.intermediate_size :])
        post = gated(gate, up, config.family.hidden_act, arithmetic)
        mlp_out = arithmetic.linear(hook(name + "mlp.hook_post", post), layer.down_proj)
        mlp_out = rms_norm(mlp_out, layer.post_feedforward_layernorm, eps, arithmetic)
        resid_post = resid_mid + hook(name + "hook_mlp_out", mlp_out)
        return hook(name + "hook_resid_post", resid_post)
    except ArithmeticRangeError as error:
        raise ArithmeticRangeError(f"blocks.{layer.index}: {error}") from None


def unembed(weights: Weights, x: Array, hook: Hook = no_hook) -> Array:
    """``(T, D) -> (T, V)``: the last norm and the output matrix."""
    eps = weights.config.rms_norm_eps
    x = hook("ln_final.hook_normalized", rms_norm(x, weights.norm, eps, weights.arithmetic))
    return weights.arithmetic.linear(x, weights.lm_head)


def _attend(
    layer: Layer, resid_pre: Array, q: Array, k: Array, v: Array, spans: Sequence[Span], hook: Hook
) -> Array:
    """Attention of each sequence over what its cache returns; ``(T, H, d)``."""
    name, outputs = f"blocks.{layer.index}.attn.", []
    hooks = (
        None
        if hook is no_hook
        else (
            lambda scores: hook(name + "hook_attn_scores", scores),
            lambda pattern: hook(name + "hook_pattern", pattern),
        )
    )
    for span in spans:
        rows, at, cache = (span.rows, ...), span.positions, span.cache
        key_positions, keys, values = at, k[rows], v[rows]
        observe = None
        if cache is not None:
            key_positions, keys, values = cache.update(layer, at, resid_pre[rows], keys, values)
            if cache.watches:
                observe = partial(cache.observe, layer)
        outputs.append(
            attention(
                q[rows],
                keys,
                values,
                at,
                key_positions,
                layer.arithmetic,
                layer.config.attention_scale,
                layer.window,
                hooks,
                observe,
            )
        )
        if cache is not None:
            cache.evict(layer)
    return outputs[0] if len(outputs) == 1 else layer.arithmetic.xp.concat(outputs, axis=0)


def _stack(
    weights: Weights, sequences: Sequence[Any], caches: Sequence[Cache | None] | None
) -> tuple[np.ndarray, list[Span]]:
    """Check the sequences and lay their tokens out as rows."""
    config = weights.config
    if not hasattr(sequences, "__len__") or not len(sequences):
        raise InputError("no sequences given, expected a list of one or more")
    if caches is None:
        caches = [None] * len(sequences)
    if not hasattr(caches, "__len__"):
        raise InputError(f"caches is {caches!r:.80}, expected a list with one for each sequence")
    if len(caches) != len(sequences):
        raise InputError(f"{len(caches)} caches for {len(sequences)} sequences, expected one each")
    for cache in caches:
        if cache is not None:
            check_cache(cache, weights)
    held = [id(cache) for cache in caches if cache is not None]
    if len(set(held)) != len(held):
        raise InputError("one cache is given for two sequences, expected one each")
    new = [check_ids(sequence, config) for sequence in sequences]
    stacked, spans, start = [], [], 0
    for ids, cache in zip(new, caches, strict=True):
        run, positions = (ids, np.arange(len(ids))) if cache is None else cache.begin(ids)
        if positions[-1] >= config.max_position_embeddings:
            raise InputError(
                f"{positions[-1] + 1} tokens, expected at most {config.max_position_embeddings} "
                "(max_position_embeddings); shorten the prompt"
            )
        stacked.append(run)
        spans.append(Span(slice(start, start + len(run)), positions, cache, len(ids)))
        start += len(run)
    return np.concatenate(stacked), spans

"""The forward pass, written as the residual stream.

::

    tokens -> embedding -> stream -> [ read the stream, add to the stream ] x L -> norm -> logits

Every activation passes once through ``hook(name, value)`` under the name that TransformerLens
gives it; a hook may look, or return a replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arithmetic import Arithmetic, Array
from .caches import Cache
from .config import ModelConfig
from .errors import ArithmeticRangeError, InputError
from .layers import Hook, Layer, attention, rms_norm, rope, swiglu
from .projection import kv_from_residual


def no_hook(name: str, value: Array) -> Array:
    """The hook that does nothing."""
    return value


@dataclass(frozen=True)
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
    cache: Cache | None


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
        ``hook(name, value) -> value`` for every activation.

    Returns
    -------
    (rows, V) or None
        Logits in ``arithmetic.dtype``; None for ``logits="none"``.

    Raises
    ------
    InputError
        If a sequence is empty, holds an id outside the vocabulary, or outgrows the context.
    """
    if logits not in ("last", "all", "none"):
        raise InputError(f"logits is {logits!r}; choose 'last', 'all' or 'none'")
    ids, spans = _stack(weights.config, sequences, caches)
    positions = np.concatenate([span.positions for span in spans])
    x = hook("hook_embed", embed(weights, ids))
    for layer in weights.layers:
        x = block(layer, x, positions, spans, hook)
    for span in spans:
        if span.cache is not None:
            span.cache.advance(len(span.positions))
    if logits == "none":
        return None
    if logits == "last":
        last = np.array([span.rows.stop - 1 for span in spans])
        x = weights.arithmetic.xp.take(x, weights.arithmetic.xp.asarray(last), axis=0)
    return unembed(weights, x, hook)


def embed(weights: Weights, ids: np.ndarray) -> Array:
    """``(T,) int -> (T, D)``: the stream before block 0."""
    xp = weights.arithmetic.xp
    return xp.take(weights.embed_tokens, xp.asarray(ids), axis=0)


def block(
    layer: Layer, resid_pre: Array, positions: np.ndarray, spans: Sequence[Span],
    hook: Hook = no_hook,
) -> Array:  # fmt: skip
    """One block: attention reads the stream and adds to it, then the MLP does.

    ``(T, D) -> (T, D)``: resid_pre -> resid_mid -> resid_post.
    """
    config, arithmetic, xp = layer.config, layer.arithmetic, layer.arithmetic.xp
    name, eps, tokens = f"blocks.{layer.index}.", config.rms_norm_eps, resid_pre.shape[0]
    try:
        resid_pre = hook(name + "hook_resid_pre", resid_pre)
        x = rms_norm(resid_pre, layer.input_layernorm, eps, arithmetic)
        x = hook(name + "ln1.hook_normalized", x)
        q = arithmetic.linear(x, layer.q_proj)
        q = xp.reshape(q, (tokens, config.num_attention_heads, config.head_dim))
        q = rope(hook(name + "attn.hook_q", q), layer.rotary(positions), arithmetic)
        q = hook(name + "attn.hook_rot_q", q)
        k, v = kv_from_residual(resid_pre, positions, layer, x, hook)
        z = hook(name + "attn.hook_z", _attend(layer, resid_pre, q, k, v, spans, hook))
        attn_out = arithmetic.linear(xp.reshape(z, (tokens, -1)), layer.o_proj)
        resid_mid = resid_pre + hook(name + "hook_attn_out", attn_out)

        resid_mid = hook(name + "hook_resid_mid", resid_mid)
        x = rms_norm(resid_mid, layer.post_attention_layernorm, eps, arithmetic)
        x = hook(name + "ln2.hook_normalized", x)
        gate = hook(name + "mlp.hook_pre", arithmetic.linear(x, layer.gate_proj))
        up = hook(name + "mlp.hook_pre_linear", arithmetic.linear(x, layer.up_proj))
        post = hook(name + "mlp.hook_post", swiglu(gate, up, arithmetic))
        mlp_out = arithmetic.linear(post, layer.down_proj)
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
    watch = hook is not no_hook
    for span in spans:
        rows, key_positions = span.rows, span.positions
        keys, values = k[rows], v[rows]
        if span.cache is not None:
            key_positions, keys, values = span.cache.update(
                layer, span.positions, resid_pre[rows], keys, values
            )
        outputs.append(attention(
            q[rows], keys, values, span.positions, key_positions, layer.arithmetic,
            (lambda scores: hook(name + "hook_attn_scores", scores)) if watch else None,
            (lambda pattern: hook(name + "hook_pattern", pattern)) if watch else None,
        ))  # fmt: skip
    return outputs[0] if len(outputs) == 1 else layer.arithmetic.xp.concat(outputs, axis=0)


def _stack(
    config: ModelConfig, sequences: Sequence[Any], caches: Sequence[Cache | None] | None
) -> tuple[np.ndarray, list[Span]]:
    """Check the sequences and lay their tokens out as rows."""
    if not len(sequences):
        raise InputError("no sequence given, expected at least one")
    if caches is None:
        caches = [None] * len(sequences)
    if len(caches) != len(sequences):
        raise InputError(f"{len(caches)} caches for {len(sequences)} sequences, expected one each")
    held = [id(cache) for cache in caches if cache is not None]
    if len(set(held)) != len(held):
        raise InputError("one cache is given for two sequences, expected one each")
    checked, spans, start = [], [], 0
    for sequence, cache in zip(sequences, caches, strict=True):
        ids = check_ids(sequence, config)
        seen = 0 if cache is None else cache.seen
        if seen + len(ids) > config.max_position_embeddings:
            raise InputError(
                f"{seen + len(ids)} tokens, expected at most {config.max_position_embeddings} "
                "(max_position_embeddings); shorten the prompt"
            )
        checked.append(ids)
        positions = np.arange(seen, seen + len(ids))
        spans.append(Span(slice(start, start + len(ids)), positions, cache))
        start += len(ids)
    return np.concatenate(checked), spans


def check_ids(ids: Sequence[int] | np.ndarray, config: ModelConfig) -> np.ndarray:
    """Token ids as an int64 array, or an `InputError` that says what is wrong with them."""
    try:
        array = np.asarray(ids)
    except ValueError:
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InputError("token ids are not one flat sequence of whole numbers")
    if not array.size:
        raise InputError("no tokens given, expected at least one (the prompt is empty)")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"token ids have dtype {array.dtype}, expected whole numbers")
    wrong = (array < 0) | (array >= config.vocab_size)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"token id {array[at]} at index {at} is outside the vocabulary "
            f"(0 to {config.vocab_size - 1})"
        )
    return array.astype(np.int64)

"""The forward pass, written as the residual stream.

::

    tokens -> embedding -> stream -> [ read the stream, add to the stream ] x L -> norm -> logits

Read `forward` first, then `block`, `attend` and `mlp`. Every activation passes through
``hook(name, value)`` under the name that TransformerLens gives it; a hook may look, or return a
replacement. ``ln1.hook_normalized`` passes twice: queries are made from the stream, and so, apart
from them, are keys and values.

What a sequence remembers is a `minikv.memory.Memory`; the caches of `minikv.caches` are such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from .arithmetic import Arithmetic, Matrix, Sight, Watch
from .arrays import (
    Array,
    HeadOutputs,
    Logits,
    NewKeys,
    NewValues,
    Positions,
    Queries,
    Stream,
    TokenIds,
    shaped,
)
from .config import ModelConfig
from .errors import ArithmeticRangeError, InputError
from .layers import Hook, Layer, no_hook, within
from .memory import Attended, Memory
from .projection import kv_from_residual, queries

Ids = Sequence[int] | np.ndarray
"""Token ids as a user gives them."""


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """Everything learned: embedding, blocks, final norm, output matrix.

    Attributes
    ----------
    digest : callable
        Makes the SHA-256 of all tensors as they were given; see `identity`.
    """

    config: ModelConfig
    arithmetic: Arithmetic
    embed_tokens: Matrix  # (V, D), as `Arithmetic.lookup` reads it
    layers: tuple[Layer, ...]
    norm: Array  # (D,)
    lm_head: Matrix  # (V, D)
    digest: Callable[[], str]

    @cached_property
    def identity(self) -> str:
        """What tells this model from every other: a hash of its configuration and all weights.

        It does not depend on arithmetic or backend. Made when it is first asked for.
        """
        return self.digest()


@dataclass(frozen=True)
class Span:
    """The rows of one sequence among the rows of a call."""

    rows: slice  # where they stand among those of the call
    positions: np.ndarray  # (T,) int
    cache: Memory | None = None
    new: int = 0  # how many of the rows, at their end, are new tokens

    def recall(self, layer: Layer, resid_pre: Stream, k: NewKeys, v: NewValues) -> Attended:
        """What the sequence's tokens attend to, given their own rows: all that is remembered."""
        if self.cache is None:
            return self.positions, k, v
        return self.cache.update(layer, self.positions, resid_pre, k, v)

    def last_rows(self, count: int) -> np.ndarray:
        """Where the last rows stand among those of the call."""
        return np.arange(self.rows.stop - count, self.rows.stop)


def forward(
    weights: Weights,
    sequences: Sequence[Ids],
    caches: Sequence[Memory | None] | None = None,
    logits: str = "last",
    hook: Hook = no_hook,
) -> Logits | None:
    """Run new tokens of one or more sequences through the decoder.

    A batch is more rows: the tokens of all sequences are stacked, without padding, and only
    attention looks at which rows belong together.

    Parameters
    ----------
    weights : Weights
    sequences : sequence of token ids
        New tokens of each sequence; lengths may differ.
    caches : sequence of Memory or None, optional
        The memory of each sequence, as `minikv.caches` makes them. Without one, the tokens are a
        whole text of their own.
    logits : {"last", "all", "none"}
        For which rows to compute logits: each sequence's last, every one, or none at all.
    hook : callable
        ``hook(name, value) -> value`` for every activation. K and V that a residual cache makes
        again do not pass through it: under a hook that changes values, such a cache and the full
        one differ.

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
    ids, spans = stack(weights, sequences, caches)
    positions = np.concatenate([span.positions for span in spans])  # (T,)
    x = hook("hook_embed", embed(weights, ids))  # (T, D), the rows of all sequences
    for layer in weights.layers:
        x = block(layer, x, positions, spans, hook)  # (T, D)
    out = None
    if logits != "none":
        x = wanted_rows(weights, x, spans, logits)  # (rows, D)
        out = unembed(weights, x, hook)  # (rows, V)
    for span in spans:
        if span.cache is not None:
            span.cache.advance(span.new)
    return out


@shaped
def embed(weights: Weights, ids: TokenIds) -> Stream:
    """The stream before block 0, ``(T,) int -> (T, D)``."""
    x = weights.arithmetic.lookup(weights.embed_tokens, ids)
    if weights.config.family.scaled_embedding:
        x = x * weights.config.embedding_scale
    return x


@shaped
def block(
    layer: Layer,
    resid_pre: Stream,
    positions: Positions,
    spans: Sequence[Span],
    hook: Hook = no_hook,
) -> Stream:
    """One block: attention reads the stream and adds to it, then the MLP does; ``(T, D)``."""
    hook = within(f"blocks.{layer.index}.", hook)
    with named_by(layer):
        resid_pre = hook("hook_resid_pre", resid_pre)
        attn_out = hook("hook_attn_out", attend(layer, resid_pre, positions, spans, hook))
        resid_mid = hook("hook_resid_mid", resid_pre + attn_out)
        mlp_out = hook("hook_mlp_out", mlp(layer, resid_mid, hook))
        return hook("hook_resid_post", resid_mid + mlp_out)


@shaped
def attend(
    layer: Layer, resid_pre: Stream, positions: Positions, spans: Sequence[Span], hook: Hook
) -> Stream:
    """What attention adds to the stream, ``(T, D) -> (T, D)``."""
    q = queries(resid_pre, positions, layer, hook)  # (T, H, d)
    k, v = kv_from_residual(resid_pre, positions, layer, hook)  # (T, G, d)
    outputs = []
    for span in spans:
        rows = (span.rows, ...)  # the array API wants something said of every axis
        attended = span.recall(layer, resid_pre[rows], k[rows], v[rows])  # (S, G, d)
        outputs.append(attend_one(layer, span, q[rows], attended, hook))  # (T, H, d)
    z = outputs[0] if len(outputs) == 1 else layer.arithmetic.xp.concat(outputs, axis=0)
    z = layer.merged(hook("attn.hook_z", z))  # (T, H*d)
    return layer.norm(layer.linear(z, layer.o_proj), layer.post_attention_layernorm)


def attend_one(layer: Layer, span: Span, q: Queries, attended: Attended, hook: Hook) -> HeadOutputs:
    """Attention of one sequence's queries over what it remembers, ``(T, H, d)``."""
    key_positions, keys, values = attended
    sight = Sight(span.positions, key_positions, layer.window)
    scale = layer.config.attention_scale
    watch = watching(layer, span, hook)
    z = layer.arithmetic.attention(q, keys, values, sight, scale, watch)
    if span.cache is not None:
        span.cache.evict(layer)
    return z


def watching(layer: Layer, span: Span, hook: Hook) -> Watch:
    """Who looks at the attention of one sequence: the hooks, and a cache that scores its keys."""
    observe = None
    if span.cache is not None and span.cache.watches:
        observe = partial(span.cache.observe, layer)
    if hook is no_hook:
        return Watch(observe=observe)
    scores = partial(hook, "attn.hook_attn_scores")
    pattern = partial(hook, "attn.hook_pattern")
    return Watch(scores, pattern, observe)


@shaped
def mlp(layer: Layer, resid_mid: Stream, hook: Hook) -> Stream:
    """What the MLP adds to the stream, down(act(gate(x)) * up(x)); ``(T, D) -> (T, D)``."""
    x = hook("ln2.hook_normalized", layer.norm(resid_mid, layer.pre_mlp_layernorm))  # (T, D)
    gate, up = layer.linears(x, layer.gate_proj, layer.up_proj)  # (T, F)
    gate = hook("mlp.hook_pre", gate)
    up = hook("mlp.hook_pre_linear", up)
    post = layer.arithmetic.gated(gate, up, layer.config.family.hidden_act)  # (T, F)
    post = hook("mlp.hook_post", post)
    return layer.norm(layer.linear(post, layer.down_proj), layer.post_feedforward_layernorm)


@shaped
def unembed(weights: Weights, x: Stream, hook: Hook = no_hook) -> Logits:
    """The last norm and the output matrix, ``(T, D) -> (T, V)``."""
    x = weights.arithmetic.rms_norm(x, weights.norm, weights.config.rms_norm_eps)
    x = hook("ln_final.hook_normalized", x)
    return weights.arithmetic.linear(x, weights.lm_head)


def wanted_rows(weights: Weights, x: Stream, spans: Sequence[Span], logits: str) -> Stream:
    """The rows whose logits are asked for: each sequence's last, or all that are new.

    A memory may have had old tokens run again before the new ones; these are not asked for.
    """
    counts = [1 if logits == "last" else span.new for span in spans]
    rows = [span.last_rows(count) for span, count in zip(spans, counts, strict=True)]
    xp = weights.arithmetic.xp
    return xp.take(x, xp.asarray(np.concatenate(rows)), axis=0)


@contextmanager
def named_by(layer: Layer) -> Iterator[None]:
    """Say in which block a value left the arithmetic's range."""
    try:
        yield
    except ArithmeticRangeError as error:
        raise ArithmeticRangeError(f"blocks.{layer.index}: {error}") from None


def stack(
    weights: Weights, sequences: Sequence[Ids], caches: Sequence[Memory | None] | None
) -> tuple[TokenIds, list[Span]]:
    """Check the sequences and lay their tokens out as rows."""
    if not hasattr(sequences, "__len__") or not len(sequences):
        raise InputError("no sequences given, expected a list of one or more")
    caches = checked_caches(weights, len(sequences), caches)
    checked = [check_ids(sequence, weights.config) for sequence in sequences]
    stacked = []
    spans = []
    start = 0
    for ids, cache in zip(checked, caches, strict=True):
        run = ids
        positions = np.arange(len(ids))
        if cache is not None:  # it knows the positions, and may want old tokens to be run again
            run, positions = cache.begin(ids)
        check_length(int(positions[-1]) + 1, weights.config)
        stacked.append(run)
        spans.append(Span(slice(start, start + len(run)), positions, cache, len(ids)))
        start += len(run)
    return np.concatenate(stacked), spans


def checked_caches(
    weights: Weights, sequences: int, caches: Sequence[Memory | None] | None
) -> Sequence[Memory | None]:
    """One cache, or none, for each sequence; or an `InputError`."""
    if caches is None:
        return [None] * sequences
    if not hasattr(caches, "__len__"):
        raise InputError(f"caches is {caches!r:.80}, expected a list with one for each sequence")
    if len(caches) != sequences:
        raise InputError(f"{len(caches)} caches for {sequences} sequences, expected one each")
    given = [cache for cache in caches if cache is not None]
    for cache in given:
        check_cache(cache, weights)
    if len({id(cache) for cache in given}) != len(given):
        raise InputError("one cache is given for two sequences, expected one each")
    return caches


def check_cache(cache: object, weights: Weights) -> None:
    """Raise `InputError` for what is no cache, or one of another model."""
    if getattr(cache, "weights", None) is not weights:
        raise InputError("a cache is not of this model; make one with model.new_cache()")


def check_ids(ids: Ids, config: ModelConfig) -> TokenIds:
    """Token ids as an int64 array, or an `InputError` that says what is wrong with them."""
    try:
        array = np.asarray(ids)
    except ValueError:  # ragged lists, which are refused as any other of two dimensions
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InputError("token ids are not one flat sequence of whole numbers")
    if not array.size:
        raise InputError("no tokens given, expected at least one (the prompt is empty)")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"token ids have dtype {array.dtype}, expected whole numbers")
    wrong = (array < 0) | (array >= config.vocab_size)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise InputError(
            f"token id {array[index]} at index {index} is outside the vocabulary "
            f"(0 to {config.vocab_size - 1})"
        )
    return array.astype(np.int64)


def check_length(tokens: int, config: ModelConfig) -> None:
    """Raise `InputError` for a text that outgrows the context."""
    if tokens > config.max_position_embeddings:
        raise InputError(
            f"{tokens} tokens, expected at most {config.max_position_embeddings} "
            "(max_position_embeddings); shorten the prompt"
        )

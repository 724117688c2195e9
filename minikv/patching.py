"""Looking at activations and replacing them, in TransformerLens's names.

The names, in the order in which their activations are made, down the left column of block l and
then down the right one::

    hook_embed                       (T, D)

    blocks.l.hook_resid_pre          (T, D)      blocks.l.attn.hook_attn_scores   (H, T, S)
    blocks.l.ln1.hook_normalized     (T, D)      blocks.l.attn.hook_pattern       (H, T, S)
    blocks.l.attn.hook_q             (T, H, d)   blocks.l.attn.hook_z             (T, H, d)
    blocks.l.attn.hook_rot_q         (T, H, d)   blocks.l.hook_attn_out           (T, D)
    blocks.l.ln1.hook_normalized     (T, D)      blocks.l.hook_resid_mid          (T, D)
    blocks.l.attn.hook_k             (T, G, d)   blocks.l.ln2.hook_normalized     (T, D)
    blocks.l.attn.hook_rot_k         (T, G, d)   blocks.l.mlp.hook_pre            (T, F)
    blocks.l.attn.hook_v             (T, G, d)   blocks.l.mlp.hook_pre_linear     (T, F)
                                                 blocks.l.mlp.hook_post           (T, F)
                                                 blocks.l.hook_mlp_out            (T, D)
                                                 blocks.l.hook_resid_post         (T, D)

    ln_final.hook_normalized         (T, D)

``ln1.hook_normalized`` passes twice, with the same bits: queries are made from the stream, and so,
apart from them, are keys and values. A hook of that name is called both times, and counts or
changes both. ``hook_normalized`` is what the block reads, after the norm's weight;
TransformerLens's is before. ``hook_rot_k`` and ``hook_v`` are K and V as attention reads them and a
KV cache keeps them: under `Exact` they are on its grid, and what a hook returns is moved there.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import decoder
from .arrays import Array, to_numpy
from .errors import InputError

IMPOSSIBLE = -1e4  # a logarithm of 0, as exp sees it: of -inf, which 0 times is no number


def run_with_cache(
    weights: decoder.Weights, ids: Sequence[int] | np.ndarray
) -> tuple[Array, dict[str, Array]]:
    """One pass over a whole text that keeps every activation.

    The name is TransformerLens's, whose "cache" is the dict of activations. A KV cache
    (`minikv.caches`) is neither used nor made.

    Returns
    -------
    logits : (T, V)
    activations : dict of str to array
        By the names above; of ``ln1.hook_normalized`` the second.
    """
    activations: dict[str, Array] = {}

    def keep(name: str, value: Array) -> Array:
        activations[name] = value
        return value

    logits = decoder.forward(weights, [ids], logits="all", hook=keep)
    return logits, activations


def run_with_hooks(
    weights: decoder.Weights, ids: Sequence[int] | np.ndarray, hooks: Mapping[str, Callable]
) -> Array:
    """One pass with ``hooks[name](value, name)`` applied to the activations named.

    A hook returns the replacement, of the same shape, or None to leave the value as it is.

    Raises
    ------
    InputError
        If a name is not an activation of this model, a hook does not take a value and its name, or
        a replacement has another shape.

    Examples
    --------
    Zero the stream before block 1:

    >>> import minikv
    >>> model = minikv.random_model(minikv.tiny_config(), seed=0)
    >>> zero = {"blocks.1.hook_resid_pre": lambda value, name: 0 * value}
    >>> bool((model.run_with_hooks([1, 2], zero) == 0).all())
    True
    """
    for name, hook in hooks.items():
        _check_hook(name, hook)
    used = set()

    def apply(name: str, value: Array) -> Array:
        if name not in hooks:
            return value
        used.add(name)
        new = hooks[name](value, name)
        if new is None:
            return value
        shape = getattr(new, "shape", type(new).__name__)
        if shape != value.shape:
            raise InputError(f"hook {name} returned shape {shape}, expected {value.shape}")
        if weights.arithmetic.xp.isdtype(new.dtype, "complex floating"):
            raise InputError(f"hook {name} returned {new.dtype}, expected real numbers")
        return weights.arithmetic.xp.astype(new, value.dtype, copy=False)

    logits = decoder.forward(weights, [ids], logits="all", hook=apply)
    unused = sorted(set(hooks) - used)
    if unused:
        raise InputError(
            f"hook {unused[0]!r} names no activation; run_with_cache(ids)[1] lists the names"
        )
    return logits


def _check_hook(name: str, hook: Callable) -> None:
    """Refuse what cannot be called with a value and its name."""
    try:
        with contextlib.suppress(ValueError):  # what is compiled may not say what it takes
            inspect.signature(hook).bind(None, name)
    except TypeError:
        raise InputError(
            f"hook {name} is no function of two arguments, expected hook(value, name)"
        ) from None


def kl_divergence(p_logits: Array, q_logits: Array) -> np.ndarray:
    """D_KL(p || q) of the next-token distributions, row by row, in nats; ``(..., V) -> (...)``.

    Taken in float64. A logit of -inf is a token that cannot come. What cannot come under p adds
    nothing, and what can come under p alone makes the divergence infinite. Equal logits give
    exactly 0.0, since every term is then ``p * 0`` or nothing. Rows that are no distribution, of
    -inf alone or with NaN or +inf, give NaN.
    """
    p = np.maximum(_log_softmax(p_logits), IMPOSSIBLE)
    q = np.where(np.exp(p) == 0, p, _log_softmax(q_logits))
    return np.sum(np.exp(p) * (p - q), axis=-1)


def _log_softmax(logits: Array) -> np.ndarray:
    x = np.array(to_numpy(logits), dtype=np.float64, order="C")  # sums follow the layout of memory
    with np.errstate(invalid="ignore"):  # -inf alone, or +inf: NaN
        x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))

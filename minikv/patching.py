"""Looking at activations and replacing them, in TransformerLens's names.

``hook_normalized`` is what the block reads, after the norm's weight; TransformerLens's is before.

The names of block l, in the order in which they are computed::

    hook_embed                          blocks.l.attn.hook_pattern       (H, T, S)
    blocks.l.hook_resid_pre    (T, D)   blocks.l.attn.hook_z             (T, H, d)
    blocks.l.ln1.hook_normalized        blocks.l.hook_attn_out           (T, D)
    blocks.l.attn.hook_q    (T, H, d)   blocks.l.hook_resid_mid          (T, D)
    blocks.l.attn.hook_rot_q            blocks.l.ln2.hook_normalized
    blocks.l.attn.hook_k    (T, G, d)   blocks.l.mlp.hook_pre            (T, F)
    blocks.l.attn.hook_v    (T, G, d)   blocks.l.mlp.hook_pre_linear     (T, F)
    blocks.l.attn.hook_rot_k            blocks.l.mlp.hook_post           (T, F)
    blocks.l.attn.hook_attn_scores      blocks.l.hook_mlp_out            (T, D)
                            (H, T, S)   blocks.l.hook_resid_post         (T, D)
    ln_final.hook_normalized   (T, D)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import decoder
from .arrays import Array, to_numpy
from .errors import InputError


def run_with_cache(
    weights: decoder.Weights, ids: Sequence[int] | np.ndarray
) -> tuple[Array, dict[str, Array]]:
    """One pass that keeps every activation.

    Returns
    -------
    logits : (T, V)
    activations : dict of str to array
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
        If a name is not an activation of this model, or a replacement has another shape.

    Examples
    --------
    Zero the stream before block 1:

    >>> import minikv
    >>> model = minikv.random_model(minikv.tiny_config(), seed=0)
    >>> zero = {"blocks.1.hook_resid_pre": lambda value, name: 0 * value}
    >>> bool((model.run_with_hooks([1, 2], zero) == 0).all())
    True
    """
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


def kl_divergence(p_logits: Array, q_logits: Array) -> np.ndarray:
    """D_KL(p || q) of the next-token distributions, row by row, in nats; ``(..., V) -> (...)``.

    Taken in float64. Equal logits give exactly 0.0, since every term is then ``p * 0``.
    """
    p, q = _log_softmax(p_logits), _log_softmax(q_logits)
    return np.sum(np.exp(p) * (p - q), axis=-1)


def _log_softmax(logits: Array) -> np.ndarray:
    x = np.array(to_numpy(logits), dtype=np.float64, order="C")  # sums follow the layout of memory
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))

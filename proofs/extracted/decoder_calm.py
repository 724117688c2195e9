"""`calm` of ``Calm.v`` once more: models of which ``Finite.v`` proves that no check can fire.

Their weights are up to 64, those of norms up to 4096, and so on. Then, for any text that the
context holds, all K/V, activations and logits are finite: nothing overflows.
"""

from __future__ import annotations

import numpy as np
from decoder_cases import Case

from minikv.arithmetic import elementary
from minikv.layers import Layer
from minikv.rotary import rope_frequencies

WEIGHT = 2.0**6
NORM = 2.0**12
BIAS = 2.0**40
EMBEDDING = 2.0**80
WIDEST = 2**16  # numbers in a row
DEEPEST = 2**10  # blocks
LONGEST = 2**20  # tokens
BELOW_ONE = float.fromhex("0x1.fe01p-1")  # no entry of exp's table below that of 0 is larger
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NORMS = (
    "input_layernorm",
    "pre_mlp_layernorm",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    "q_norm",
    "k_norm",
)
BIASES = ("q_bias", "k_bias", "v_bias")


def calm(case: Case) -> bool:
    """Whether the numbers of a model are such that none of its checks can fire."""
    weights = case.model.weights
    return (
        _calm_config(case)
        and case.config.hidden_size <= WIDEST
        and _up_to(weights.embed_tokens, EMBEDDING)
        and len(weights.layers) <= DEEPEST
        and all(_calm_block(layer) for layer in weights.layers)
        and _up_to(weights.norm, NORM)
        and _up_to(weights.lm_head.values, WEIGHT)
    )


def good_table(table: np.ndarray) -> bool:
    """What the proofs ask of the table of ``exp``: `good_table` and `sound_table`."""
    zero = -elementary.LOWEST * elementary.STEPS  # where exp(0) is
    below = table[:zero]
    return bool(
        (below >= 0.0).all()
        and (below <= BELOW_ONE).all()
        and table[zero] == 1.0
        and (table >= 0.0).all()
        and np.isfinite(table).all()
    )


def _calm_config(case: Case) -> bool:
    config = case.config
    return (
        _between(config.rms_norm_eps)
        and _between(config.query_pre_attn_scalar or config.head_dim)
        and config.max_position_embeddings <= LONGEST
        and config.num_attention_heads * config.head_dim <= WIDEST
        and config.embedding_scale <= 2.0**20
        and good_table(elementary.exp_table())
    )


def _calm_block(layer: Layer) -> bool:
    frequencies = rope_frequencies(layer.config, layer.window is not None)
    return (
        layer.window != 0
        and _up_to(frequencies, 1.0)
        and all(_up_to(getattr(layer, name), NORM) for name in NORMS)
        and all(_up_to(getattr(layer, name), BIAS) for name in BIASES)
        and all(_calm_matrix(getattr(layer, name).values) for name in MATRICES)
    )


def _calm_matrix(values: np.ndarray) -> bool:
    return len(values) <= WIDEST and _up_to(values, WEIGHT)


def _up_to(values: np.ndarray | None, bound: float) -> bool:
    return values is None or max(-values.min(), values.max()) <= bound


def _between(value: float) -> bool:
    return 2.0**-100 <= value <= 2.0**100

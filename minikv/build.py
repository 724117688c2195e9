"""From tensors under Hugging Face's names to the weights that a decoder runs on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .arithmetic import Arithmetic, Matrix
from .arrays import Array
from .backends import get_backend, keep_large_blocks
from .config import ModelConfig
from .decoder import Weights
from .errors import InputError, WeightsError
from .layers import Layer
from .rotary import Rotary
from .weights import expected_shapes, release, weights_hash

Tensors = Mapping[str, np.ndarray]
"""Tensors by Hugging Face's names, such as ``model.layers.0.self_attn.k_proj.weight``."""


def build(
    config: ModelConfig,
    tensors: Tensors,
    arithmetic: str | Arithmetic = "float32",
    backend: str = "numpy",
) -> Weights:
    """Prepare tensors under Hugging Face's names for an arithmetic on a backend.

    They are rounded to float32 first, but for ``"float64"``: what backends round anew must be one
    thing, or their bits would differ.

    Raises
    ------
    WeightsError
        If a tensor is missing.
    """
    names = {*tensors}  # asking a mapping whether it has one tensor might make the tensor
    missing = sorted(expected_shapes(config).keys() - names)
    if missing:
        raise WeightsError(f"the tensor {missing[0]} is missing")
    keep_large_blocks()
    chosen = get_backend(backend, arithmetic, config.max_position_embeddings)
    prepare = Preparation(config, tensors, chosen)
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    lm_head = prepare.matrix(head, tied=config.tie_word_embeddings)  # the largest, so first
    return Weights(
        config,
        prepare.arithmetic,
        embed_tokens=prepare.embedding(lm_head),
        layers=prepare.layers(),
        norm=prepare.norm("model.norm"),
        lm_head=lm_head,
        digest=digest_of(config, tensors),
    )


@dataclass(frozen=True)
class Preparation:
    """Tensors, and what makes weights of them."""

    config: ModelConfig
    tensors: Tensors
    arithmetic: Arithmetic

    def layers(self) -> tuple[Layer, ...]:
        """The blocks; those with a window may have rotary positions of their own."""
        everywhere = Rotary(self.config, self.arithmetic)
        local = Rotary(self.config, self.arithmetic, local=True)
        indices = range(self.config.num_hidden_layers)
        windows = [self.config.window(index) for index in indices]
        return tuple(
            self.layer(index, everywhere if window is None else local)
            for index, window in zip(indices, windows, strict=True)
        )

    def layer(self, index: int, rotary: Rotary) -> Layer:
        """One block."""
        family = self.config.family
        block = f"model.layers.{index}"
        heads = f"{block}.self_attn"
        pre_mlp = (
            "pre_feedforward_layernorm" if family.sandwich_norms else "post_attention_layernorm"
        )
        layer = {
            "input_layernorm": self.norm(f"{block}.input_layernorm"),
            "pre_mlp_layernorm": self.norm(f"{block}.{pre_mlp}"),
        }
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            layer[name] = self.matrix(f"{heads}.{name}")
        for name in ("gate_proj", "up_proj", "down_proj"):
            layer[name] = self.matrix(f"{block}.mlp.{name}")
        if family.qkv_bias:
            for name in ("q", "k", "v"):
                layer[f"{name}_bias"] = self.vector(f"{heads}.{name}_proj.bias")
        if family.qk_norm:
            for name in ("q_norm", "k_norm"):
                layer[name] = self.norm(f"{heads}.{name}")
        if family.sandwich_norms:
            for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
                layer[name] = self.norm(f"{block}.{name}")
        return Layer(index, self.config, self.arithmetic, rotary, **layer)

    def given(self, name: str) -> np.ndarray:
        """A tensor, in float32 where the arithmetic starts from that."""
        tensor = np.asarray(self.tensors[name])
        if not self.arithmetic.weights_in_float32:
            return tensor
        with np.errstate(over="ignore"):  # infinity, which is refused where it is read
            return tensor.astype(np.float32, copy=False)

    def vector(self, name: str) -> Array:
        """A bias, or the embedding: what is read or added in the model's dtype."""
        return self.arithmetic.xp.asarray(self.given(name), dtype=self.arithmetic.dtype)

    def embedding(self, lm_head: Matrix) -> Array:
        """The embedding, which may be held once where it is the output matrix too."""
        if self.config.tie_word_embeddings and self.arithmetic.looks_up_in_matrices:
            return lm_head
        return self.vector("model.embed_tokens.weight")

    def norm(self, name: str) -> Array:
        """What an RMSNorm multiplies by, in the wide dtype."""
        weight = self.given(f"{name}.weight")
        weight = self.arithmetic.xp.asarray(weight, dtype=self.arithmetic.wide)
        offset = self.config.family.norm_offset
        return weight + offset if offset else weight

    def matrix(self, name: str, tied: bool = False) -> Matrix:
        """A matrix as the arithmetic wants it; pages of the file that it was read from may go."""
        tensor = self.given(f"{name}.weight")
        prepared = self.arithmetic.weight(tensor, name, tied)
        release([tensor])
        return prepared


def digest_of(config: ModelConfig, tensors: Tensors) -> Callable[[], str]:
    """What makes the SHA-256 of a configuration and all tensors.

    Tensors that lie in memory are hashed now, so that they need not be kept; those of a folder
    when the hash is asked for, and the folder keeps theirs.
    """
    if isinstance(tensors, dict):
        weights = weights_hash({name: tensors[name] for name in expected_shapes(config)})
        return lambda: _identity(config, weights)
    return lambda: _identity(config, weights_hash(tensors))


def _identity(config: ModelConfig, weights: str) -> str:
    contents = json.dumps(config.to_dict(), sort_keys=True)
    return hashlib.sha256(f"{contents} {weights}".encode()).hexdigest()


def random_tensors(config: ModelConfig, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names, float32.

    Uniform with variance ``scale**2 / K`` for a ``(N, K)`` matrix, 1 for the embedding; norms
    multiply by 0.9 to 1.1, biases are from -1 to 1. They are made from the raw bits of PCG64, whose
    stream NumPy guarantees, by operations that round correctly: no platform changes them.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}, expected a whole number from 0 up")
    bits = np.random.PCG64(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        raw = (bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float64)
        unit = (raw - 2.0**23) / 2.0**23  # 24 bits: uniform on [-1, 1)
        if name.endswith(".bias"):
            values = unit
        elif len(shape) == 1:
            values = 1.0 - config.family.norm_offset + 0.1 * unit
        else:
            fan_in = 1 if name == "model.embed_tokens.weight" else shape[1]
            values = unit * (scale * math.sqrt(3.0 / fan_in))  # the variance of `unit` is 1/3
        tensors[name] = values.reshape(shape).astype(np.float32)
    return tensors

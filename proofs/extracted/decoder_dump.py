"""A model and a text as the plain file that the extracted decoder reads; see ``main.ml``.

Little-endian throughout: a line with the format's version, numbers of the configuration, the ids,
the table of ``exp``, and the tensors under Hugging Face's names, float32, unprepared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minikv import ModelConfig
from minikv.arithmetic import elementary
from minikv.rotary import rope_frequencies

MAGIC = b"minikv dump 1\n"
_ROW = 256  # entries of exp's table in one of the decoder's rows


class Writer:
    """Numbers into a binary file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def ints(self, *values: int) -> None:
        self.file.write(np.array(values, dtype="<i4").tobytes())

    def doubles(self, values: np.ndarray | Sequence[float]) -> None:
        self.file.write(np.asarray(values, dtype="<f8").tobytes())

    def tensor(self, tensor: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(tensor, dtype="<f4").data)


def dump(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    ids: Sequence[int],
    denominator_bits: int,
) -> None:
    """Write a model and the ids of a text.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    config : ModelConfig
    tensors : mapping of str to ndarray
        Under Hugging Face's names, float32.
    ids : sequence of int
    denominator_bits : int
        Of the arithmetic: the softmax's numerators are multiples of 2 to minus this.
    """
    with path.open("wb") as file:
        file.write(MAGIC)
        writer = Writer(file)
        _numbers(writer, config, ids, denominator_bits)
        writer.tensor(tensors["model.embed_tokens.weight"])
        for layer in range(config.num_hidden_layers):
            _block(writer, config, tensors, layer)
        writer.tensor(tensors["model.norm.weight"])
        if not config.tie_word_embeddings:
            writer.tensor(tensors["lm_head.weight"])


def _numbers(writer: Writer, config: ModelConfig, ids: Sequence[int], bits: int) -> None:
    family = config.family
    writer.ints(
        config.num_key_value_heads,
        config.num_attention_heads // config.num_key_value_heads,
        config.head_dim,
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.vocab_size,
        len(ids),
        family.hidden_act != "silu",
        family.scaled_embedding,
        family.qkv_bias,
        family.qk_norm,
        family.sandwich_norms,
        config.tie_word_embeddings,
    )
    writer.doubles(
        [
            config.rms_norm_eps,
            config.query_pre_attn_scalar or config.head_dim,
            family.norm_offset,
            config.embedding_scale,
            config.max_position_embeddings,
            2.0**-bits,
        ]
    )
    writer.ints(*ids)
    table = elementary.exp_table()
    rows = -(-table.size // _ROW)
    writer.ints(rows)
    writer.doubles(table)
    writer.doubles(np.zeros(rows * _ROW - table.size))


def _block(
    writer: Writer, config: ModelConfig, tensors: Mapping[str, np.ndarray], layer: int
) -> None:
    prefix = f"model.layers.{layer}."
    family = config.family
    window = config.window(layer)
    writer.ints(window or 0)
    writer.tensor(rope_frequencies(config, window is not None))
    names = ["input_layernorm.weight"]
    names += [f"self_attn.{letter}_proj.weight" for letter in "qkvo"]
    if family.qkv_bias:
        names += [f"self_attn.{letter}_proj.bias" for letter in "qkv"]
    if family.qk_norm:
        names += ["self_attn.q_norm.weight", "self_attn.k_norm.weight"]
    if family.sandwich_norms:
        names += ["post_attention_layernorm.weight", "pre_feedforward_layernorm.weight"]
    else:
        names += ["post_attention_layernorm.weight"]
    names += [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    if family.sandwich_norms:
        names += ["post_feedforward_layernorm.weight"]
    for name in names:
        writer.tensor(np.asarray(tensors[prefix + name]))

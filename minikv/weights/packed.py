"""Quantised matrices as MLX packs them: a few bits a weight, a scale and a bias for each group.

A row of K weights is K * bits / 32 words of 32 bits, the first weight in the lowest bits. A group
of neighbours in a row shares a scale and a bias: ``w = scale * q + bias`` with q from 0 up.

What such a checkpoint *means* is not one thing. MLX's products add ``scale * q`` and ``bias`` in
float32 and never round a weight; where it looks up a row of the embedding it rounds each weight to
the type of the scales. Here the weight is the number that the formula gives, rounded once, to
float32: the product and the sum are taken in float64, which holds both exactly for scales and
biases of float16, and for bfloat16 where they are less than 2**37 apart.

Tested on what a writer of our own packs, of 2, 4 and 8 bits, and on one small model of 4 bits that
MLX 0.32.4 quantised and saved, on a processor; on no checkpoint of a hub. MLX packs 3, 5 and 6 bits
too, across words: that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..config_json import Quantization
from ..errors import WeightsError

ROWS = 256  # that are unpacked at a time, which bounds the temporaries
WORD = 32  # bits
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Packed:
    """A quantised matrix.

    Parameters
    ----------
    words : (N, K * bits / 32) uint32
    scales, biases : (N, K / group_size) float32
    bits : int
    """

    words: np.ndarray
    scales: np.ndarray
    biases: np.ndarray
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, K)``, as the matrix has it."""
        rows, words = self.words.shape
        return rows, words * WORD // self.bits

    def unpacked(self) -> np.ndarray:
        """The matrix, float32."""
        rows, columns = self.shape
        groups = self.scales.shape[1]
        shifts = np.arange(0, WORD, self.bits, dtype=np.uint32)
        mask = np.uint32((1 << self.bits) - 1)
        matrix = np.empty(self.shape, dtype=np.float32)
        for start in range(0, rows, ROWS):
            some = slice(start, start + ROWS)
            codes = (self.words[some, :, None] >> shifts) & mask  # (n, words, 32 / bits)
            weights = codes.astype(np.float64).reshape(-1, groups, columns // groups)
            weights *= self.scales[some, :, None]
            weights += self.biases[some, :, None]
            matrix[some] = weights.reshape(-1, columns)
        return matrix


def pack_up(
    stored: Mapping[str, np.ndarray], quantization: Quantization
) -> dict[str, np.ndarray | Packed]:
    """Join the words of each quantised matrix with its scales and biases.

    Parameters
    ----------
    stored : mapping of str to ndarray
        Tensors as they are stored: words as uint32, bfloat16 as the uint16 that holds its bits.
    quantization : Quantization
        What ``config.json`` says.

    Raises
    ------
    WeightsError
        If scales or biases are missing, of another shape than the words ask for, or not finite.
    """
    found: dict[str, np.ndarray | Packed] = dict(stored)
    for name, words in stored.items():
        if words.dtype != np.uint32:
            continue
        stem = name.removesuffix(".weight")
        parts = [_part(stored, stem, kind) for kind in ("scales", "biases")]
        _check(name, words, parts, quantization)
        for kind in ("scales", "biases"):
            del found[f"{stem}.{kind}"]
        found[name] = Packed(words, parts[0], parts[1], quantization.bits)
    return found


def _part(stored: Mapping[str, np.ndarray], stem: str, kind: str) -> np.ndarray:
    """Scales or biases of a matrix, float32."""
    part = stored.get(f"{stem}.{kind}")
    if part is None:
        raise WeightsError(
            f"checkpoint holds {stem!a:.80} as packed whole numbers and lacks {stem!a:.80}.{kind}, "
            "which MLX stores beside them"
        )
    if part.dtype == np.uint32:
        raise WeightsError(f"{stem!a:.80}.{kind} holds whole numbers, expected floating point")
    if part.dtype == np.uint16:
        return np.left_shift(part, 16, dtype=np.uint32).view(np.float32)
    return part.astype(np.float32, copy=False)


def _check(
    name: str, words: np.ndarray, parts: list[np.ndarray], quantization: Quantization
) -> None:
    """Whether words, scales and biases fit together, and give finite weights."""
    if words.ndim != 2:
        raise WeightsError(f"{name!a:.80} has {words.ndim} dimensions, expected a packed matrix")
    rows, count = words.shape
    columns = count * WORD // quantization.bits
    groups = columns // quantization.group_size
    if groups * quantization.group_size != columns:
        raise WeightsError(
            f"{name!a:.80} packs rows of {columns} weights, expected a multiple of "
            f"quantization.group_size, which is {quantization.group_size}"
        )
    for kind, part in zip(("scales", "biases"), parts, strict=True):
        if part.shape != (rows, groups):
            raise WeightsError(
                f"the {kind} of {name!a:.80} have shape {part.shape!s:.80}, expected "
                f"{(rows, groups)}: one for each {quantization.group_size} of {columns} weights"
            )
    largest = (1 << quantization.bits) - 1
    scales, biases = (np.abs(part.astype(np.float64)) for part in parts)
    if not (scales * largest + biases <= _FLOAT32_MAX).all():  # nor for NaN
        raise WeightsError(
            f"scales or biases of {name!a:.80} give weights that are not finite or too large for "
            "float32"
        )

"""Solutions of chapter 1, the decoder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def parameters(config: Any) -> int:
    """A block has four matrices in attention, three in the MLP, and two norms."""
    D, F = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    block = 2 * queries * D + 2 * keys * D + 3 * F * D + 2 * D
    embeddings = 1 if config.tie_word_embeddings else 2
    return config.num_hidden_layers * block + embeddings * config.vocab_size * D + D


def share(keys: np.ndarray, query_heads: int) -> np.ndarray:
    """Copies of a head lie side by side: repeat, not tile."""
    return np.repeat(keys, query_heads // keys.shape[1], axis=1)


def unrope(keys: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """The rotation by the negative angle: the cosine stays, the sine changes its sign."""
    a, b = np.split(keys, 2, axis=-1)
    return np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=-1)


def surprise(logits: np.ndarray, ids: list[int]) -> float:
    """Rows 0 to T - 2 predict tokens 1 to T - 1."""
    rows = logits[:-1] - logits[:-1].max(axis=-1, keepdims=True)
    log_p = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return float(-np.mean(log_p[np.arange(len(ids) - 1), ids[1:]]))


def one_pass(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Keep the largest score, the denominator and the numerator; rescale when the first grows."""
    largest, denominator, numerator = -math.inf, 0.0, np.zeros(v.shape[1])
    for key, value in zip(k, v, strict=True):
        score = q @ key / math.sqrt(len(q))
        new = max(largest, score)
        old, weight = math.exp(largest - new), math.exp(score - new)
        denominator = denominator * old + weight
        numerator = numerator * old + weight * value
        largest = new
    return numerator / denominator

"""Which part of a model a rank has: some query heads, some of the MLP's width, some words.

A query head can be cut off from its neighbours, since attention adds up nothing over heads; its
key/value head comes with it. What is left are the places where ranks must meet: the embedding (each
row is on one of them), attention's output (a sum over heads), the MLP's output (a sum over its
width), and the logits (side by side).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..config import ModelConfig
from ..errors import InputError

Index = tuple[slice | np.ndarray, ...]
"""What is taken of a tensor; () for all of it."""


def pieces(count: int, size: int) -> list[range]:
    """`count` things for `size` ranks, as evenly as can be.

    Examples
    --------
    >>> pieces(9, 4)
    [range(0, 2), range(2, 4), range(4, 6), range(6, 9)]
    """
    edges = [count * rank // size for rank in range(size + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def shared_by(heads: range, each: int) -> int:
    """How many neighbouring query heads of a rank read one K/V head, the same number for all.

    In the model `each` do. A cut may leave one of them on another rank; then fewer share one here,
    and a K/V head is there more than once.

    Examples
    --------
    >>> shared_by(range(0, 6), 3), shared_by(range(0, 4), 3), shared_by(range(2, 4), 4)
    (3, 1, 2)
    """
    inside = [head for head in range(heads.start + 1, heads.stop) if head % each == 0]
    edges = [heads.start, *inside, heads.stop]
    return math.gcd(*np.diff(edges).tolist())


@dataclass(frozen=True)
class Share:
    """A rank's part of a model.

    Attributes
    ----------
    whole : ModelConfig
        The model's shape.
    heads : range
        Query heads.
    features : range
        Of the MLP.
    words : range
        Of the vocabulary: rows of the embedding and of the output matrix.
    """

    whole: ModelConfig
    heads: range
    features: range
    words: range

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Which K/V head of the model each K/V head of the rank is."""
        each = self.whole.num_attention_heads // self.whole.num_key_value_heads
        step = shared_by(self.heads, each)
        return tuple(head // each for head in self.heads[::step])

    @property
    def config(self) -> ModelConfig:
        """The shape of the rank's part, as its decoder and caches see it."""
        return replace(
            self.whole,
            num_attention_heads=len(self.heads),
            num_key_value_heads=len(self.groups),
            intermediate_size=len(self.features),
        )

    def part(self, name: str) -> Index:
        """What the rank has of a tensor, by Hugging Face's name."""
        kind = name.split(".")[-2]
        head_dim = self.whole.head_dim
        columns = (slice(None),)
        features = (slice(self.features.start, self.features.stop),)
        heads = (slice(self.heads.start * head_dim, self.heads.stop * head_dim),)
        parts: dict[str, Index] = {
            "q_proj": heads,
            "k_proj": self._kv_rows(),
            "v_proj": self._kv_rows(),
            "o_proj": columns + heads,
            "gate_proj": features,
            "up_proj": features,
            "down_proj": columns + features,
            "embed_tokens": (slice(self.words.start, self.words.stop),),
            "lm_head": (slice(self.words.start, self.words.stop),),
        }
        return parts.get(kind, ())

    def _kv_rows(self) -> Index:
        head_dim = self.whole.head_dim
        first = self.groups[0]
        last = self.groups[-1]
        if self.groups == tuple(range(first, last + 1)):
            return (slice(first * head_dim, (last + 1) * head_dim),)  # a view
        starts = np.array(self.groups)[:, None] * head_dim
        return ((starts + np.arange(head_dim)).reshape(-1),)


def even_shares(config: ModelConfig, size: int) -> list[Share]:
    """The shares of `size` ranks, as even as can be.

    Heads are cut between K/V heads while there are enough of those, so that each K and V is held
    once; more ranks than that hold some of them twice.

    Raises
    ------
    InputError
        If there are more ranks than query heads, features or words.
    """
    check_size(config, size)
    each = config.num_attention_heads // config.num_key_value_heads
    if size <= config.num_key_value_heads:
        groups = pieces(config.num_key_value_heads, size)
        heads = [range(group.start * each, group.stop * each) for group in groups]
    else:
        heads = pieces(config.num_attention_heads, size)
    features = pieces(config.intermediate_size, size)
    return shares_of(config, heads, features, pieces(config.vocab_size, size))


def shares_of(
    config: ModelConfig,
    heads: Sequence[range],
    features: Sequence[range],
    words: Sequence[range],
) -> list[Share]:
    """The shares of ranks that have these heads, features and words."""
    return [Share(config, *part) for part in zip(heads, features, words, strict=True)]


def check_size(config: ModelConfig, size: int) -> None:
    """Raise `InputError` for more ranks than there is to share."""
    limits = {
        "query heads": config.num_attention_heads,
        "features of the MLP": config.intermediate_size,
        "tokens of the vocabulary": config.vocab_size,
    }
    for what, most in limits.items():
        if not 1 <= size <= most:
            raise InputError(
                f"{size} ranks for a model of {most} {what}, expected 1 to {min(limits.values())}"
            )

"""Attention in parts: the largest score, the denominator and the weighted sum of some keys.

In the reals, merging two parts is associative and commutative and has a neutral element, so that
any partition, order and tree of the keys gives attention. In floats it is not exact: each merge
scales one of the parts anew, which rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """Attention of one query to some keys, unfinished; float64."""

    top: float  # the largest score; -inf for no key
    total: float  # sum of exp(score - top)
    weighted: np.ndarray  # (d,): sum of exp(score - top) * value


def part(scores: np.ndarray, values: np.ndarray) -> Part:
    """Of keys with these scores, ``(S,)``, and values, ``(S, d)``; of none, the neutral one."""
    if not len(scores):
        return Part(-math.inf, 0.0, np.zeros(values.shape[1]))
    top = float(scores.max())
    weights = np.exp(scores - top)
    return Part(top, float(weights.sum()), weights @ values)


def merge(one: Part, two: Part) -> Part:
    """The part of the keys of both."""
    top = max(one.top, two.top)
    if top == -math.inf:
        return one
    first = math.exp(one.top - top)
    second = math.exp(two.top - top)
    return Part(
        top,
        one.total * first + two.total * second,
        one.weighted * first + two.weighted * second,
    )


def finish(whole: Part) -> np.ndarray:
    """What attention gives, ``(d,)``."""
    return whole.weighted / whole.total


def any_tree(parts: Sequence[Part], rng: np.random.Generator) -> Part:
    """Merge parts in a random order and association."""
    left = list(parts)
    while len(left) > 1:
        first, second = sorted(rng.permutation(len(left))[:2].tolist())
        joined = merge(left[second], left[first])
        left = [kept for place, kept in enumerate(left) if place not in (first, second)]
        left.append(joined)
    return left[0]

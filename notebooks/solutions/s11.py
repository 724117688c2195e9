"""Solutions of chapter 11."""

from __future__ import annotations

import math

import numpy as np


def keep(tokens, gates, budget):
    """By logarithms, which do not underflow."""
    worth = {t: math.log(gates[t]) * (tokens[-1] + 1 - t) for t in tokens}
    return sorted(sorted(tokens, key=lambda t: (worth[t], t))[-budget:])


def merge(one, two):
    """Both parts beside the larger of the two largest scores."""
    top = max(one[0], two[0])
    if top == -math.inf:
        return one
    first, second = math.exp(one[0] - top), math.exp(two[0] - top)
    return top, one[1] * first + two[1] * second, one[2] * first + two[2] * second


def fewest(changes):
    """A row is made where it changes, there or above."""
    return np.flip(np.logical_or.accumulate(np.flip(changes, 0), 0), 0)


def accept(draft, logits):
    """Row by row, as long as the draft says what the row says."""
    said = []
    for row, token in enumerate(np.argmax(logits, axis=-1).tolist()):
        said.append(token)
        if row == len(draft) or draft[row] != token:
            break
    return said

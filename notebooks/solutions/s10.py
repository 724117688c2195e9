"""Solutions of chapter 10."""

from __future__ import annotations

import numpy as np


def verdict(narrow, wide):
    """The wide difference decides; the narrow one says only whether there is any."""
    if wide > 2.0**-20:
        return "bug"
    return "rounding" if narrow else "same bits"


def leaks(logits, ids, cut):
    """Every other text of the same length that has the same beginning, nine of them."""
    before = logits(ids)[:cut]
    for more in range(1, 10):
        changed = ids[:cut] + [(token + more) % 10 for token in ids[cut:]]
        if (logits(changed)[:cut] != before).any():
            return True
    return False


def mask(old, tokens, window=None):
    """Distances of queries from keys."""
    distance = old + np.arange(tokens)[:, None] - np.arange(old + tokens)[None, :]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def smallest(fails, ids):
    """Leave out one id after the other, and begin anew after each that could go."""
    place = 0
    while place < len(ids):
        shorter = ids[:place] + ids[place + 1 :]
        if fails(shorter):
            ids = shorter
            place = 0
        else:
            place += 1
    return ids

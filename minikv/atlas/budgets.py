"""Budgets that differ from layer to layer, and rows that the best of a ranking keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..caches import Rows


def shares(preferences: Sequence[float], total: int, most: Sequence[int]) -> list[int]:
    """`total` tokens dealt to layers in proportion to their preferences, at least one to each.

    Adams's method, a divisor method: the next token goes to the layer of the largest preference a
    token. Sums are exact, and a layer more takes tokens from others and gives none, so that
    dealing layer by layer ends where dealing at once does.

    Parameters
    ----------
    preferences : sequence of float
        Positive, one a layer.
    total : int
        No fewer than layers.
    most : sequence of int
        Tokens that each layer has.

    Examples
    --------
    >>> shares([3.0, 1.0], 8, [20, 20])
    [6, 2]
    >>> shares([3.0, 1.0], 8, [4, 20]), shares([1.0, 1.0], 9, [3, 3])
    ([4, 4], [3, 3])
    """
    quotients = []
    for layer, (preference, tokens) in enumerate(zip(preferences, most, strict=True)):
        for number in range(tokens):
            worth = np.inf if number == 0 else preference / number
            quotients.append((-worth, number, layer))
    dealt = [layer for *_, layer in sorted(quotients)[:total]]
    return [dealt.count(layer) for layer in range(len(most))]


def keep_best(rows: Rows, priority: np.ndarray, count: int) -> None:
    """Leave the `count` rows of each head that rank highest, of equals the newer; ``(S, G)``."""
    if len(rows) <= count:
        return
    order = np.argsort(priority, axis=0, kind="stable")
    rows.keep(np.sort(order[len(rows) - count :], axis=0))

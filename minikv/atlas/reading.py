"""A full cache of which each head reads some rows: what systems that select have in common."""

from __future__ import annotations

import numpy as np

from ..arrays import Keys, NewKeys, NewValues, Positions, Queries, Stream, to_numpy
from ..caches import Cache
from ..layers import Layer
from ..memory import Attended
from ..projection import queries
from ..verify.memories import Wrapped

FAR = 2**40  # a position that no query sees


class Reading(Wrapped):
    """All keys are kept; a token that is fed alone reads those that `chosen` says, and itself.

    A call of several tokens is read as usual: the systems of this kind select while they decode.
    Rows that are not read are put behind the others, at a position that no token reaches.

    Attributes
    ----------
    reads : dict
        Which rows each head of each layer read at the last token, ``(S, G)`` of bool.
    """

    def __init__(self, inner: Cache) -> None:
        super().__init__(inner)
        self.reads: dict[int, np.ndarray] = {}

    def chosen(self, layer: Layer, q: Queries, keys: Keys) -> np.ndarray:
        """Which rows each K/V head reads, ``(S, G)``, of `q`, ``(1, H, d)``, and all keys."""
        raise NotImplementedError

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        attended, keys, values = super().update(layer, positions, residual, k, v)
        if len(positions) > 1:
            return attended, keys, values
        q = queries(residual, positions, layer)
        chosen = self.chosen(layer, q, keys)
        chosen[-1] = True
        self.reads[layer.index] = chosen
        order = reading_order(chosen)
        read = np.take_along_axis(chosen, order, axis=0)
        places = np.where(read, attended[order], FAR)
        return (
            places,
            np.take_along_axis(to_numpy(keys), order[..., None], axis=0),
            np.take_along_axis(to_numpy(values), order[..., None], axis=0),
        )


def reading_order(chosen: np.ndarray) -> np.ndarray:
    """The rows of each head, those that are read first, in the order of the text; ``(S, G)``."""
    return np.argsort(~chosen, axis=0, kind="stable")


def in_place(pattern: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Weights of the rows as read, ``(H, S)``, back at the rows' places in the text."""
    share = len(pattern) // chosen.shape[1]
    order = np.repeat(reading_order(chosen).T, share, axis=0)  # (H, S)
    found = np.zeros_like(pattern)
    np.put_along_axis(found, order, pattern, axis=1)
    return found


def by_group(q: Queries, keys: Keys) -> np.ndarray:
    """The largest score that a key gets from the query heads of its group, ``(S, G)``, float64."""
    groups = keys.shape[1]
    asked = to_numpy(q, dtype=np.float64).reshape(groups, -1, q.shape[-1])  # (G, R, d)
    return np.einsum("sgd,grd->srg", to_numpy(keys, dtype=np.float64), asked).max(axis=1)


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Which of each column's scores are the `count` largest, of equals the later; bool."""
    ranks = np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0)
    return ranks >= len(scores) - count

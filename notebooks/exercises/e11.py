"""Checks of chapter 11: gates, merged parts, rows to make again, accepted drafts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minikv.atlas.ground import small_model
from minikv.atlas.systems.trim_kv import TrimKV

from . import close, exercise, require

GATES = [
    ([0, 1, 2, 3, 4, 5], [0.9] * 6, 3, "equal gates: the newest stay"),
    ([0, 1, 2, 3, 4, 5], [1.0, 1.0, 0.9, 0.9, 0.9, 0.9], 4, "gates of 1 for the first two"),
    ([0, 2, 5, 9], [0.5, 1, 0.99, 1, 1, 0.6, 1, 1, 1, 0.7], 2, "gates that differ"),
    ([0, 1, 2, 3000, 3001], [0.4, 0.6, 0.5] + [0.1] * 3000, 4, "old tokens: powers of 3000"),
    ([3, 4], [0.5] * 5, 9, "a budget for more than there is"),
]


def kept_by_the_library(case: tuple[list[int], list[float], int]) -> list[int]:
    """The positions that the atlas's TRIM-KV leaves, with these gates and this budget."""
    tokens, gates, budget = case
    cache = TrimKV(small_model().weights, budget, gates=tuple(gates))
    layer = cache.weights.layers[0]
    rows = np.zeros((len(tokens), layer.config.num_key_value_heads, layer.config.head_dim))
    cache.rows[0].append(np.array(tokens), rows, rows)
    cache.evict(layer)
    return cache.rows[0].positions[:, 0].tolist()


@exercise
def check_keep(keep: Callable) -> None:
    """11.1: what a gate is worth."""
    for tokens, gates, budget, what in GATES:
        expected = kept_by_the_library((tokens, gates, budget))
        got = list(keep(list(tokens), list(gates), budget))
        require(
            got == expected,
            f"{what}: of {tokens} with a budget of {budget} you keep {got}, expected {expected}.",
        )


def part(scores: np.ndarray, values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The three numbers of some keys."""
    if not len(scores):
        return -math.inf, 0.0, np.zeros(values.shape[1])
    top = float(scores.max())
    weights = np.exp(scores - top)
    return top, float(weights.sum()), weights @ values


@exercise
def check_merge(merge: Callable) -> None:
    """11.2: two parts are one."""
    rng = np.random.default_rng(0)
    for scale, cut in ((1.0, 3), (10.0, 5), (300.0, 2), (1.0, 0), (1.0, 8)):
        scores = rng.normal(size=8) * scale
        values = rng.normal(size=(8, 3))
        expected = part(scores, values)
        for swapped in (False, True):
            parts = [part(scores[:cut], values[:cut]), part(scores[cut:], values[cut:])]
            if swapped:
                parts.reverse()
            got = merge(*parts)
            told = f"{cut} keys and {8 - cut} keys, scores near {scale:g}"
            for name, mine, right in zip("msz", got, expected, strict=True):
                require(close(mine, right), f"{told}: {name} is {mine}, expected {right}.")
    none = part(np.empty(0), np.empty((0, 3)))
    got = merge(none, none)
    require(got[0] == -math.inf, f"no keys and no keys: m is {got[0]}, expected -inf.")
    require(close(got[1], 0.0) and close(got[2], np.zeros(3)), "no keys and no keys are no keys.")


@exercise
def check_fewest(fewest: Callable) -> None:
    """11.3: a row needs the rows below it."""
    rng = np.random.default_rng(1)
    for layers, tokens in ((1, 4), (2, 3), (4, 6)):
        for share in (0.2, 0.5):
            changes = rng.random((layers, tokens)) < share
            got = np.asarray(fewest(changes.copy())).astype(bool)
            require(got.shape == changes.shape, f"your table has shape {got.shape}.")
            for layer in range(layers):
                for place in range(tokens):
                    needed = bool(changes[layer:, place].any())
                    where = f"position {place} at layer {layer}"
                    require(
                        got[layer, place] or not needed,
                        f"{where} is not made, and its row changes there or above:\n{changes}",
                    )
                    require(
                        needed or not got[layer, place],
                        f"{where} is made, and its row changes neither there nor above:\n{changes}",
                    )


@exercise
def check_accept(accept: Callable) -> None:
    """11.4: what greedy decoding would have said."""
    for true, draft in (
        ([3, 1, 4, 1], [3, 1, 4]),
        ([3, 1, 4, 1], [3, 2, 4]),
        ([3, 1, 4, 1], [0, 1, 4]),
        ([3, 1, 4, 1], []),
        ([3, 1, 4, 1], [3, 1, 0]),
    ):
        logits = np.zeros((len(draft) + 1, 6))
        for row in range(len(logits)):
            right = draft[:row] == true[:row]
            logits[row, true[row] if right else 5] = 1.0
        expected = []
        for row, token in enumerate(true[: len(logits)]):
            expected.append(token)
            if row < len(draft) and draft[row] != token:
                break
        got = [int(token) for token in accept(list(draft), logits)]
        require(
            got == expected,
            f"greedy decoding says {true}; of the draft {draft} you make {got}, "
            f"expected {expected}.",
        )

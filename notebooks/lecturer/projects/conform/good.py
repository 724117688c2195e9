"""A decoder of one block whose positions are a linear penalty on scores, with a cache.

Roundings, on `length`, `cached`, `truncate`, `fork` and `last-position`: in each a product of some
rows is compared with one of others, and BLAS adds in another order. Calls of the same shapes have
the same bits. What is not tested it does not have: batches, padding, windows, names.
"""

import numpy as np


class Decoder:
    """One head of attention and a residual, on given random weights."""

    vocab = 24
    width = 16
    max_length = 64

    def __init__(self, dtype="float32", weights=None):
        rng = np.random.default_rng(3)
        shapes = {"embed": (self.vocab, self.width)}
        shapes |= dict.fromkeys("qkvo", (self.width, self.width))
        drawn = {name: rng.normal(size=shape) * 0.4 for name, shape in shapes.items()}
        given = weights or {name: matrix.astype(np.float32) for name, matrix in drawn.items()}
        self.weights = {name: matrix.astype(dtype) for name, matrix in given.items()}
        self.dtype = np.dtype(dtype)

    def new_cache(self):
        empty = np.zeros((0, self.width), self.dtype)
        return {"k": empty, "v": empty}

    def step(self, ids, cache):
        w = self.weights
        x = w["embed"][ids]
        old = len(cache["k"])
        cache["k"] = np.concatenate([cache["k"], x @ w["k"]])
        cache["v"] = np.concatenate([cache["v"], x @ w["v"]])
        distance = self.places(old, len(ids))[:, None] - np.arange(old + len(ids))
        scores = x @ w["q"] @ cache["k"].T - self.dtype.type(0.25) * distance.astype(self.dtype)
        scores = np.where(distance < 0, self.dtype.type(-np.inf), scores)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return (x + weights @ cache["v"] @ w["o"]) @ w["embed"].T

    def places(self, old, new):
        return old + np.arange(new)

    def logits(self, ids):
        return self.step(ids, self.new_cache())

    def truncate(self, cache, length):
        for name, rows in cache.items():
            cache[name] = rows[:length]

    def fork(self, cache):
        return dict(cache)

    def wide(self):
        return type(self)("float64", self.weights)


class Faulty(Decoder):
    """Places count from the call's first token."""

    def places(self, old, new):
        return np.maximum(old - 1, 0) + np.arange(new)


decoder = Decoder
faulty = Faulty
FAULT_AXIS = "cached"

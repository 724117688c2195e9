"""Solutions of chapter 8."""

from __future__ import annotations

import math


def holds(softmax, scores):
    """Weights add up to 1, and two of them are in the ratio exp(difference of scores)."""
    weights = softmax(scores)
    ratios = all(
        abs(weights[i] - weights[0] * math.exp(scores[i] - scores[0]))
        <= 1e-9 * max(1.0, weights[i])
        or math.isclose(weights[i], weights[0] * math.exp(scores[i] - scores[0]), rel_tol=1e-6)
        for i in range(len(scores))
    )
    return abs(sum(weights) - 1) <= 1e-9 and ratios


def sources(program):
    """Every step reads earlier ones, whose sources are known by then."""
    known = []
    for number, step in enumerate(program):
        known.append(set().union(*(known[read] for read in step)) if step else {number})
    return known


class Ring:
    """Row p lies at place p % capacity; rows from `oldest` to `count` are there."""

    def __init__(self, capacity):
        self.capacity, self.places = capacity, [None] * capacity
        self.oldest = self.count = 0

    def push(self, x):
        self.places[self.count % self.capacity] = x
        self.count += 1
        self.oldest = max(self.oldest, self.count - self.capacity)

    def pop(self):
        if self.count > self.oldest:
            self.count -= 1

    def items(self):
        return [self.places[p % self.capacity] for p in range(self.oldest, self.count)]


def suite():
    """An empty cache with two tokens, where two faults show; a long text, where the others do."""
    return [(0, 2), (4, 2)]

"""Layers whose memory is one matrix a head: what a step does, and what steps do together.

A step is ``S -> A S + U``. Two steps are one: ``(A2 A1, A2 U1 + U2)``. So steps form a monoid, and
a chunk of them can be taken together before the state is known: the recurrent form is the chunked
form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Step:
    """What a token, or a run of tokens, does to the state ``(d, e)``."""

    keep: np.ndarray  # (d, d)
    add: np.ndarray  # (d, e)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        return self.keep @ state + self.add


def then(first: Step, second: Step) -> Step:
    """Both, one after the other, as one step."""
    return Step(second.keep @ first.keep, second.keep @ first.add + second.add)


def states(steps: Sequence[Step], start: np.ndarray) -> list[np.ndarray]:
    """The state behind each token, one after the other."""
    found = []
    state = start
    for step in steps:
        state = step(state)
        found.append(state)
    return found


def by_chunks(steps: Sequence[Step], start: np.ndarray, size: int) -> list[np.ndarray]:
    """The same, chunk by chunk: the steps of a chunk are put together without the state."""
    found = []
    state = start
    for place in range(0, len(steps), size):
        whole = steps[place]
        prefixes = [whole]
        for step in steps[place + 1 : place + size]:
            whole = then(whole, step)
            prefixes.append(whole)
        found += [prefix(state) for prefix in prefixes]
        state = found[-1]
    return found


def whole_numbers(seed: int, tokens: int, width: int) -> np.ndarray:
    """Rows of -1, 0 and 1, float64: products and sums of a few are exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1, 2, size=(tokens, width)).astype(np.float64)

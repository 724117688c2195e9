"""The claim on one text: four caches decode it, one after the other, in two arithmetics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import to_numpy
from ..model import Model
from ..progress import Progress, silent
from .policies import policy_cache

PROMPT = (
    "The lighthouse keeper wrote down every ship that passed, and at the end of the year he found"
)
BUDGET = 8
CACHES = {
    "full": "every key and value is kept",
    "none": "nothing is kept, all is computed again",
    f"residual@{BUDGET}": f"KV-Direct: keys and values of {BUDGET} tokens, the rest from residuals",
    f"window@{BUDGET}": f"keys and values of {BUDGET} tokens, the rest is lost",
}
"""The caches that are shown, and what each holds."""


@dataclass(frozen=True)
class Decoded:
    """What one cache made of the prompt.

    Parameters
    ----------
    cache : str
        See `policy_cache`.
    tokens : list of int
        What was chosen, greedily.
    logits : ndarray, (new tokens, V)
        From which it was chosen.
    nbytes : int
        That the cache held at the end.
    """

    cache: str
    tokens: list[int]
    logits: np.ndarray
    nbytes: int

    def same_bits(self, full: Decoded) -> bool:
        """Whether every bit of all logits is that of the full cache."""
        return self.logits.tobytes() == full.logits.tobytes()

    def first_other_token(self, full: Decoded) -> int | None:
        """The first new token that is another one, from 1; None if none is."""
        for number, pair in enumerate(zip(self.tokens, full.tokens, strict=True), start=1):
            if pair[0] != pair[1]:
                return number
        return None


def demonstrate(
    model: Model, ids: Sequence[int], new_tokens: int, progress: Progress = silent
) -> dict[str, Decoded]:
    """Continue a text greedily with each of `CACHES`, alone; by the cache's name."""
    found: dict[str, Decoded] = {}
    for name in CACHES:
        label = f"{model.arithmetic.name}, {name}"
        cache = policy_cache(name, model.weights)
        tokens: list[int] = []
        rows = []
        unread = list(ids)
        while len(tokens) < new_tokens:
            row = to_numpy(model.forward([unread], [cache]))[0]
            unread = [int(row.argmax())]
            tokens += unread
            rows.append(row)
            done = len(found) * new_tokens + len(tokens)
            progress(label, done, len(CACHES) * new_tokens)
        found[name] = Decoded(name, tokens, np.stack(rows), cache.nbytes)
    return found

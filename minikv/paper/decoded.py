"""What a model says greedily behind a text, and the logits that it chose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..arrays import to_numpy
from ..caches import Cache
from ..generation import likeliest
from ..model import Model


class Decoded(NamedTuple):
    """What a model said, and the logits that it chose from, ``(tokens, V)``."""

    ids: list[int]
    logits: np.ndarray


def decode(model: Model, ids: Sequence[int], cache: Cache, tokens: int) -> Decoded:
    """Continue a text greedily, past end tokens too."""
    new = [*ids]
    said: list[int] = []
    logits = []
    for _ in range(tokens):
        row = model.forward([new], [cache])
        assert row is not None
        logits.append(to_numpy(row)[0])
        said.append(likeliest(logits[-1]))
        new = said[-1:]
    return Decoded(said, np.stack(logits))

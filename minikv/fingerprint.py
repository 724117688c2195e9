"""The fingerprint of a model's answer: one number that two people can compare.

Under the exact arithmetic it is a constant of the weights and the token ids: it depends neither on
the machine, BLAS, thread count, SIMD level or array library, nor on how the text is fed. (A machine
has IEEE 754's numbers, subnormal ones too, and rounds once; of another the arithmetic tells.) Under
float32 it depends on all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from .arrays import Logits, to_numpy
from .errors import InputError
from .model import Model

PROMPT = "The residual stream is all the state that a decoder has."
"""The text that ``minikv fingerprint`` reads where none is given."""


def fingerprint(model: Model, ids: Sequence[int], chunks: int | Sequence[int] | None = None) -> str:
    """SHA-256, in hexadecimal, of the logits of all positions, as little-endian float32.

    Parameters
    ----------
    model : Model
    ids : sequence of int
        One text.
    chunks : int or sequence of int, optional
        Feed the text through a full cache, so many tokens a call, or in calls of these lengths.
        By default it is one call without a cache.

    Raises
    ------
    InputError
        If an id is outside the vocabulary, the text is empty or longer than the context, or the
        chunks do not add up to it.

    Examples
    --------
    >>> import minikv
    >>> model = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
    >>> fingerprint(model, [3, 1, 4, 1, 5]) == fingerprint(model, [3, 1, 4, 1, 5], chunks=2)
    True
    """
    if chunks is None:
        return hash_logits(model.logits(ids))
    cache = model.new_cache()
    return hash_logits(
        *(model.forward([part], [cache], logits="all") for part in split(ids, chunks))
    )


def hash_logits(*parts: Logits) -> str:
    """SHA-256 of ``(rows, V)`` logits, one part after the other, as little-endian float32."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(to_numpy(part), dtype="<f4").data)
    return digest.hexdigest()


def split(ids: Sequence[int], chunks: int | Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut a text into pieces of one length (the last may be shorter), or of these lengths."""
    if isinstance(chunks, int):
        if chunks < 1:
            raise InputError(f"a chunk has {chunks} tokens, expected at least 1")
        chunks = [min(chunks, len(ids) - start) for start in range(0, len(ids), chunks)]
    if sum(chunks) != len(ids) or min(chunks, default=1) < 1:
        raise InputError(
            f"chunks {list(chunks)} do not add up to the {len(ids)} tokens of the text"
        )
    start = 0
    for length in chunks:
        yield ids[start : start + length]
        start += length

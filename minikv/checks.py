"""Checks of what a user gives: numbers of a configuration, token ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from .config import ModelConfig


def is_whole(value: Any, least: int, limit: int) -> bool:
    """Whether it is an int from `least` to below `limit`; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < limit


def is_positive(value: Any) -> bool:
    """Whether it is a finite number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def check_ids(ids: Sequence[int] | np.ndarray, config: ModelConfig) -> np.ndarray:
    """Token ids as an int64 array, or an `InputError` that says what is wrong with them."""
    try:
        array = np.asarray(ids)
    except ValueError:
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InputError("token ids are not one flat sequence of whole numbers")
    if not array.size:
        raise InputError("no tokens given, expected at least one (the prompt is empty)")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"token ids have dtype {array.dtype}, expected whole numbers")
    wrong = (array < 0) | (array >= config.vocab_size)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InputError(
            f"token id {array[at]} at index {at} is outside the vocabulary "
            f"(0 to {config.vocab_size - 1})"
        )
    return array.astype(np.int64)

"""Checks of what a user gives: numbers of a configuration, token ids, caches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ConfigError, InputError

if TYPE_CHECKING:
    from .config import ModelConfig, RopeScaling


def is_whole(value: Any, least: int, limit: int) -> bool:
    """Whether it is a whole number from `least` to below `limit`; True and False are not."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(least <= value < limit)


def is_positive(value: Any) -> bool:
    """Whether it is a number above 0 that a float can hold."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value <= sys.float_info.max


def checked(name: str, kind: str, value: Any, limit: int) -> Any:
    """A field of `ModelConfig`, annotated as `kind`, in that type; or a `ConfigError`."""
    from .config import RopeScaling  # which imports this module

    if kind == "int" and not is_whole(value, 1, limit):
        raise ConfigError(f"{name} is {value!r:.80}, expected a whole number >= 1")
    if kind == "int":
        return int(value)
    if kind == "bool" and not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r:.80}, expected True or False")
    if kind == "float" or (kind == "float | None" and value is not None):
        if not is_positive(value):
            raise ConfigError(f"{name} is {value!r:.80}, expected a positive number")
        return float(value)
    if kind.startswith("tuple"):
        if not isinstance(value, (int, list, tuple)):
            raise ConfigError(f"{name} is {value!r:.80}, expected a {kind}")
        return (value,) if isinstance(value, int) else tuple(value)
    if kind.startswith("RopeScaling") and not isinstance(value, RopeScaling | None):
        raise ConfigError(f"{name} is {value!r:.80}, expected a RopeScaling or None")
    return value


def check_scaling(scaling: RopeScaling, limit: int) -> None:
    """Raise `ConfigError` if a `RopeScaling` is not one number, or four that fit together."""
    low: Any = scaling.low_freq_factor
    high: Any = scaling.high_freq_factor
    length = scaling.original_max_position_embeddings
    if not is_positive(scaling.factor):
        raise ConfigError(f"RoPE's factor is {scaling.factor!r:.80}, expected a positive number")
    if (low, high, length) == (None, None, None):
        return
    if not (is_positive(low) and is_positive(high) and is_whole(length, 1, limit)):
        raise ConfigError(
            f"RoPE 'llama3': low_freq_factor {low!r:.40}, high_freq_factor "
            f"{high!r:.40}, original_max_position_embeddings {length!r:.40}; "
            "expected three positive numbers, the last whole"
        )
    if low >= high:
        raise ConfigError("RoPE 'llama3': low_freq_factor must be below high_freq_factor")


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


def check_cache(cache: Any, weights: Any) -> None:
    """Raise `InputError` for what is no cache, or one of another model."""
    if getattr(cache, "weights", None) is not weights:
        raise InputError("a cache is not of this model; make one with model.new_cache()")

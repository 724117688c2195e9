"""Checks of the numbers of a configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import RopeScaling


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

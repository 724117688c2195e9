"""The axes, one a file: a new axis is a file and its name in `AXES`."""

from __future__ import annotations

from . import (
    activations,
    after_stop,
    batch_order,
    budget,
    cached,
    cached_causality,
    causality,
    eviction_positions,
    fork,
    last_position,
    left_padding,
    left_padding_cached,
    length,
    positions,
    projection,
    right_padding,
    same_call,
    second,
    single_row,
    stream,
    truncate,
    warm_prefix,
    window,
)
from .axis import Axis

AXES: dict[str, Axis] = {
    module.AXIS.name: module.AXIS
    for module in (
        same_call,
        causality,
        length,
        cached,
        cached_causality,
        after_stop,
        truncate,
        fork,
        warm_prefix,
        last_position,
        left_padding,
        left_padding_cached,
        right_padding,
        batch_order,
        window,
        budget,
        eviction_positions,
        positions,
        activations,
        projection,
        stream,
        single_row,
        second,
    )
}
"""By name, in the order in which they are tested."""

__all__ = ["AXES", "Axis"]

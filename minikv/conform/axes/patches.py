"""Streams put into another text's pass: what the axes of level (c) share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...arrays import Array
from ..adapter import NotTestedError
from ..bench import Bench

Hook = Callable[[Array, str], Array]


def stream_names(names: Iterable[str]) -> list[str]:
    """The names of the streams before blocks, from the first block on."""
    found = [name for name in names if name.endswith("hook_resid_pre")]
    if not found:
        raise NotTestedError("no activation is named blocks.0.hook_resid_pre")
    return sorted(found, key=lambda name: int(name.split(".")[1]))


def put(value: Array) -> Hook:
    """A hook that puts this in place of what it is given."""
    return lambda _, name: value


def put_last(value: Array) -> Hook:
    """A hook that puts the last row of this in place of the last row that it is given."""

    def replaced(given: Array, name: str) -> Array:
        new = given.clone() if hasattr(given, "clone") else given.copy()
        new[..., -1, :] = value[..., -1, :]
        return new

    return replaced


def donor_and_recipient(bench: Bench) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two texts of a length that differ in every token but the last, which they share."""
    donor = bench.texts[0][:24]
    recipient = (*bench.changed(donor)[:-1], donor[-1])
    return donor, recipient

"""The rule: when is a difference between two ways to the same logits rounding, and when a bug?

Two kinds of relations are told apart.

*Exact relations* change contents and never a shape: later tokens, the company in a batch, the id
that pads, what was cut off. A row that must not see the change does the same operations on the same
numbers, so that it keeps its bits in every dtype: one changed bit is a leak.

*Numeric relations* reach the same rows through other shapes, whose sums are taken in another order.
Their difference is judged by what is known of the target, the best first:

* a *wide twin*, the same weights in float64: rounding shrinks there by 2**29, a bug does not;
* a *noise twin*, the same weights moved by half a unit: what that moves, rounding may move;
* the target's own *spread* over texts cut at other lengths.

Without the first, some differences are neither: they are `Word.UNDECIDED`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNITS = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
"""Half the distance from 1 to the next number: what one rounding changes at most, relatively."""

TWIN = 2.0**-20
"""Largest row difference that is rounding in float64, with room for a float32 part inside."""

TWIN_SPREADS = 64.0
"""A twin with float32 inside may differ by so many of its own spreads, which count up to `TWIN`."""

TABLE_UNITS = 4.0
"""Units of float32 that a shift costs for each position, where rotary tables are float32."""

SPREADS = 6.0
"""Differences up to so many spreads are rounding, where there is no twin."""

FLOOR_UNITS = 2.5
"""The least spread that is believed: equal bits of short texts prove nothing about longer ones."""

NOISES = 16.0
"""Differences up to so many of what the noise twin moves are rounding."""

HONEST_UNITS = 2.0**14
"""Without a wide twin, nothing below is a bug: massive activations make large rounding honest."""

ERROR_RATIO = 8.0
"""One of two ways has so many times the other's error against float64: its dtype is too narrow."""

ERROR_RATIO_16 = 4.0
"""The same in 16 bits, where honest errors differ by less: both ways round the same stored rows."""

EFFECT = 2.0**-7
"""A row difference that anybody would want to see; above it, nothing is called rounding."""


def row_differences(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Each row's difference as a share of that row's spread over the vocabulary.

    Parameters
    ----------
    expected, got : (T, V) float64

    Returns
    -------
    (T,)
        ``rms(expected - got) / std(expected)``; infinite where it is not finite.

    Examples
    --------
    >>> row_differences(np.array([[1.0, -1.0]]), np.array([[1.0, -0.5]])).round(3).tolist()
    [0.354]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scale = np.maximum(np.std(expected, axis=-1), 1e-30)
        difference = np.sqrt(np.mean((expected - got) ** 2, axis=-1)) / scale
    return np.where(np.isfinite(difference), difference, np.inf)


def twin_limit(twin_spread: float, shift: int = 0) -> float:
    """The largest row difference in the wide twin that is rounding.

    Parameters
    ----------
    twin_spread : float
        The largest difference between the twin's rows of a text and of the text cut short: 1e-15,
        or up to 1e-6 where it has float32 inside.
    shift : int
        How far positions may have been moved; rotary angles are float32 products in most libraries,
        and each is off by half a unit a position.
    """
    inside = TWIN_SPREADS * min(twin_spread, TWIN)
    table = TABLE_UNITS * shift * UNITS["float32"]
    return max(TWIN, inside, table)


def error_ratio(unit: float) -> float:
    """How many times the other's error one of two ways may have, in a dtype of this unit."""
    return ERROR_RATIO if unit <= UNITS["float32"] else ERROR_RATIO_16


@dataclass(frozen=True)
class Bounds:
    """What native differences mean where there is no wide twin.

    Attributes
    ----------
    rounding : (T,)
        Differences up to this are rounding, row by row.
    bug : float
        Differences above this are a bug; what lies between is undecided.
    yardstick : str
        What was measured.
    """

    rounding: np.ndarray
    bug: float
    yardstick: str

    @property
    def has_power(self) -> np.ndarray:
        """Rows of which "rounding" would say something; ``(T,)`` bool."""
        return self.rounding <= EFFECT


def bounds_of_spread(spread: np.ndarray, unit: float) -> Bounds:
    """Bounds from a text's own spread, ``(T,)``, over lengths."""
    typical = max(float(np.median(spread)), FLOOR_UNITS * unit)
    rows = SPREADS * np.maximum(spread, typical)
    bug = max(float(rows.max()), HONEST_UNITS * unit)
    return Bounds(rows, bug, "its own spread over lengths")


def bounds_of_noise(noise: np.ndarray, unit: float) -> Bounds:
    """Bounds from what half a unit in every weight moves, ``(T,)``."""
    rows = NOISES * np.maximum(noise, unit)
    bug = max(float(rows.max()), HONEST_UNITS * unit)
    return Bounds(rows, bug, "what half a unit in every weight moves")


def near_ties(expected: np.ndarray, got: np.ndarray) -> int:
    """How many rows have another best token, by a margin below the measured difference."""
    before = expected.argmax(axis=-1)
    after = got.argmax(axis=-1)
    count = 0
    for row in np.flatnonzero(before != after):
        margin = expected[row, before[row]] - expected[row, after[row]]
        if margin <= 2 * np.abs(expected[row] - got[row]).max():
            count += 1
    return count


def pooled(errors: list[np.ndarray]) -> float:
    """The root mean square of errors of rows, none counted as more than 10 rows."""
    every = np.minimum(np.concatenate(errors), 10.0)
    return float(np.sqrt(np.mean(every**2)))

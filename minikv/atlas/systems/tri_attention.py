"""TriAttention: before they are turned, queries and keys lie near fixed centres.

Mao et al. 2026, arXiv 2604.04921. *Rule.* The score of a query and a key at a distance is, with
the query at its centre, a trigonometric series in that distance. A key is worth what the series
gives at its distances to queries 1, 2, 4 and so on tokens ahead, averaged, and, pair by pair, its
size times how much longer queries are than their centre.

*Departures.* The centre and the size of queries are those of the keys that are held, where the code
measures queries, head by head, on texts; `ahead` is small. The code keeps the whole prompt unless
it is told otherwise, and one set of tokens for all heads or one for each; here each K/V head keeps
its own.

*Its authors claim* the full cache's accuracy with 10.7 times less of it, in long reasoning. *Here:*
the series is the turned product exactly, in the reals; in float64 to the rounding of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import to_numpy
from ...caches import Evicting, Rows
from ...config import ModelConfig
from ...numbers import whole
from ...rotary import rope_frequencies
from ..entry import Comparison, Entry, Exactness, Kind, above, at_most
from ..ground import evicting_comparisons, small_model

ROUNDING = 1e-12  # of d products and cosines in float64, of numbers near 1


def turned(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Pairs (i, i + d/2) turned by angles; ``(..., d)``, ``(..., d/2)``."""
    half = x.shape[-1] // 2
    real = x[..., :half]
    imaginary = x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([real * cos - imaginary * sin, imaginary * cos + real * sin], axis=-1)


def pairs(x: np.ndarray) -> np.ndarray:
    """Pairs (i, i + d/2) as complex numbers, ``(..., d) -> (..., d/2)``."""
    half = x.shape[-1] // 2
    return x[..., :half] + 1j * x[..., half:]


def series(q: np.ndarray, k: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The product of turned rows as a series in the distance; ``(..., d)`` twice, ``(..., d/2)``.

    A pair contributes |q| |k| cos(angle + difference of phases).
    """
    product = pairs(q) * pairs(k).conj()
    return (np.abs(product) * np.cos(angles + np.angle(product))).sum(axis=-1)


def frequencies(config: ModelConfig) -> np.ndarray:
    """Radians a token of each pair, ``(d/2,)`` float64."""
    return rope_frequencies(config).astype(np.float64)


@dataclass(eq=False, repr=False)
class TriAttention(Evicting):
    """Keep the keys that a series about the centre of queries favours; arXiv 2604.04921."""

    policy = "tri_attention"
    per_head = True

    ahead: int = 4

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}, {"budget": budget, "ahead": 1}]

    def check(self) -> None:
        super().check()
        self.ahead = whole("ahead", self.ahead)

    def priority(self, rows: Rows) -> np.ndarray:
        rates = frequencies(rows.layer.config)
        places = rows.positions[:, :, None].astype(np.float64)  # (S, G, 1)
        before = turned(to_numpy(rows.keys, dtype=np.float64), -places * rates)
        centre = before.mean(axis=0)  # (G, d)
        sizes = np.abs(pairs(before))  # (S, G, d/2)
        beyond = sizes.mean(axis=0) - np.abs(pairs(centre))
        worth = (beyond * sizes).sum(axis=-1)
        steps = 2 ** np.arange(self.ahead.bit_length())
        for step in steps.tolist():
            distances = (rows.positions.max() + step - places) * rates  # (S, G, d/2)
            worth += series(centre, before, distances) / len(steps)
        return np.round(worth, 9)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    rates = frequencies(small_model().config)
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 2 * len(rates)))
    where = 40.0
    there = np.arange(40.0)[:, None]
    product = (turned(q, where * rates) * turned(k, there * rates)).sum(axis=-1)
    found = series(q, k, (where - there) * rates)
    backwards = series(q, k, (there - where) * rates)
    return [
        at_most("series and turned product, 40 distances", np.abs(found - product).max(), ROUNDING),
        above("with the distance the other way", np.abs(backwards - product).max(), 0.1),
        at_most(
            "of one centre, distance 0: its square", abs(series(q, q, 0 * rates) - q @ q), ROUNDING
        ),
        *evicting_comparisons(TriAttention),
    ]


ENTRY = Entry(
    name="tri_attention",
    title="TriAttention",
    arxiv="2604.04921",
    kind=Kind.EVICTING,
    state="the rows kept; centres are a function of them",
    verdict=Exactness.LOSSY,
    reason="The trigonometric series is the product of the turned centres; what it drops is lost.",
    read="abstract, and the authors' code: its scores",
    theorems=("T9",),
    policy=TriAttention,
    demonstrate=demonstrate,
)

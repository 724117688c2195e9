r"""Any schedule of K/V and residuals decodes the same.

Let a schedule, which may depend on everything seen so far, decide after every step for each layer
and position whether to keep $(k, v)$, the residual $h$, or both. Decoding gives the logits of the
full cache. *Proof.* A bisimulation. Call a store *good* if every cell, read as it is or through
$\pi_l$, gives the full cache's entry. The empty store is good; a step adds good cells; keeping
either half of a good cell is good (T1); and from a good store, attention reads what it would read
from the full cache.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, Stream, to_numpy
from ...caches import Cache, Scheduled
from ...layers import Layer
from ...memory import Attended
from ...projection import kv_from_residual
from ..bits import assert_same_bits, differ
from ..cases import Case
from ..memories import Wrapped
from ..theorem import CAUSALITY, NO_BYPASS, ROW_LOCALITY, Theorem, Weaker


def check(case: Case) -> None:
    """Whatever a schedule keeps as K/V and what as residuals, decoding is the same."""
    full = case.decoded(case.model.new_cache("full"))
    rng = case.rng
    schedule = Schedule(int(rng.integers(1, 2**31)))
    memory = Told(Scheduled(case.model.weights, schedule), schedule)
    assert_same_bits(case.decoded(memory), full, "logits under a random schedule")
    every = int(rng.integers(2, max(2, len(case.model.layers)) + 1))
    for checkpoints in case.steps(("embedding", "tokens", "every", every)):
        budget = int(rng.integers(0, len(case.ids) + 2))
        forget = bool(rng.integers(2))
        chunk = int(rng.integers(1, 9))
        cache = case.model.new_cache(
            "residual", budget=budget, checkpoints=checkpoints, forget=forget, chunk=chunk
        )
        what = f"checkpoints {checkpoints!r}, budget {budget}, forget {forget}, chunk {chunk}"
        assert_same_bits(case.decoded(cache), full, f"logits of the residual cache, {what}")


@dataclass
class Schedule:
    """Decides by a hash of step, layer, position and all streams that went by."""

    salt: int
    seen: int = 0

    def __call__(self, step: int, layer: int, position: int) -> str:
        mixed = (step * 73856093 ^ layer * 19349663 ^ position * 83492791 ^ self.seen) * self.salt
        return ("kv", "residual", "both")[(mixed >> 7) % 3]


class Told(Wrapped):
    """Shows a schedule each stream, so that what it decides depends on the text."""

    def __init__(self, inner: Cache, schedule: Schedule) -> None:
        super().__init__(inner)
        self._schedule = schedule

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        rows = np.ascontiguousarray(to_numpy(residual))
        self._schedule.seen = zlib.crc32(rows.tobytes(), self._schedule.seen)
        return super().update(layer, positions, residual, k, v)


class Unplaced(Wrapped):
    """Keeps residuals of all tokens and recomputes all K and V, as if each stood at position 0.

    A residual says what a token is, not where it is: rotary keys need both. With `placed` nothing
    is lost.
    """

    def __init__(self, inner: Cache, placed: bool = False) -> None:
        super().__init__(inner)
        self._placed = placed
        self._kept: dict[int, list[tuple[Stream, Positions]]] = {}  # of each layer, call by call

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        kept = self._kept.setdefault(layer.index, [])
        keys = []
        values = []
        for rows, places in kept:
            where = places if self._placed else 0 * places
            past_k, past_v = kv_from_residual(rows, where, layer)
            keys.append(past_k)
            values.append(past_v)
        kept.append((residual, positions))
        concat = layer.arithmetic.xp.concat
        tokens = sum(len(places) for _, places in kept)
        return np.arange(tokens), concat([*keys, k], axis=0), concat([*values, v], axis=0)


def control(case: Case) -> str:
    """Recompute every key without its position."""
    unplaced = case.decoded(Unplaced(case.model.new_cache("full")))
    return "the logits differ" if differ(unplaced, case.logits) else ""


THEOREM = Theorem(
    id="T4",
    name="any eviction",
    text=__doc__,
    formula="<i>z</i>(decode, <i>σ</i>) = <i>z</i>(decode, full cache) "
    "for every schedule <i>σ</i> of K/V and residuals",
    remark="A bisimulation: after every call each stored cell, whether K/V or a residual, projects "
    "to the K/V of the full cache. Evicting and reading keep that so. KV-Direct is one schedule.",
    hypotheses=(NO_BYPASS, CAUSALITY, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="the checkpoints' positions",
    abstract="Markov.any_eviction_is_exact",
    concrete=(
        "Concrete.concrete_any_eviction",
        "Caches.concrete_scheduled",
        "Caches.concrete_residual",
    ),
    scope="one schedule by a hash, four residual caches",
    unlabelled="schedules read what is stored",
    weaker=(
        Weaker(
            "schedule-never-drops-keys-and-values",
            old='("kv", "residual", "both")',
            new='("kv", "both", "both")',
            noticed="schedule-recomputes-a-neighbour",
        ),
        Weaker(
            "nothing-evicted",
            old="budget = int(rng.integers(0, len(case.ids) + 2))",
            new="budget = int(rng.integers(0, len(case.ids) + 2)) * 0 + len(case.ids) + 1",
            noticed="replay-off-by-one-position",
        ),
        Weaker(
            "embedding-alone",
            old='("embedding", "tokens", "every", every)',
            new='("embedding",)',
            noticed="checkpoint-of-the-unscaled-embedding",
        ),
        Weaker(
            "nothing-forgotten",
            old="forget = bool(rng.integers(2))",
            new="forget = bool(rng.integers(2)) and False",
            noticed="forgets-one-too-many",
        ),
    ),
)

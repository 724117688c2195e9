r"""An old cache, mended, is exact if and only if all that changes is computed, there and below.

Take the cache of one text for another of the same length. At each layer compute some rows anew,
from the stream and the mixture of old and new keys and values, and keep the others; a row that is
left out at a layer cannot be computed above it. The result is the new text's cache if and only if
every entry that was kept is the new text's already: that is, if every entry that changes is
computed, at its layer and at all layers below. No two errors cancel. *Proof.* Layer by layer: where
all entries are exact, so are the rows that are computed from them; where a kept one is not, it is
in the result. What never changes: rows before the first token that differs; at layer 0 those of
equal tokens (T10); above windows those further on than the reach (T11).
*Check.* The equivalence, for random sets of rows, for the least set, for that less a row and for
all rows; the logits of rows made at all layers; and what never changes.
*Control.* With one row less than the least set the cache is another.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...arrays import to_numpy
from ...verify.bits import Refuted, assert_same_bits, same_bits
from ...verify.cases import Case
from ...verify.theorem import CAUSALITY, NO_BYPASS, ROW_LOCALITY, Theorem
from ..ground import kv
from ..reuse import KV, least, mended, stacked, unchanged


def check(case: Case) -> None:
    """Mended caches beside the new text's, and what of it the old one has already."""
    old_ids, new_ids, first, last = changed_texts(case)
    old, exact = kv(case.model, old_ids), kv(case.model, new_ids)
    same = unchanged(old, exact)
    check_what_stays(case, same, first, last)
    logits = to_numpy(case.model.logits(new_ids))
    for name, computed in tables(same, case.rng):
        cache, rows = mended(case.model, old, new_ids, computed)
        expected = bool(same[~computed].all())
        if same_bits(stacked(cache), stacked(exact)) != expected:
            raise Refuted(f"{name}: the mended cache is {'not ' * expected}the new text's")
        if expected:
            there = computed.all(axis=0)
            assert_same_bits(rows, logits[there], f"{name}: logits of rows made at all layers")


def changed_texts(case: Case) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """Two texts, and between which places their tokens differ: first and behind the last."""
    tokens = len(case.ids)
    first = int(case.rng.integers(max(1, tokens // 2)))
    last = min(tokens, first + max(1, tokens // 4))
    new_ids = (*case.ids[:first], *case.other[first:last], *case.ids[last:])
    return case.ids, new_ids, first, last


def check_what_stays(case: Case, same: np.ndarray, first: int, last: int) -> None:
    """Rows before the change, those behind it at layer 0, and those beyond the reach of windows."""
    for layer, rows in enumerate(same):
        if not rows[:first].all():
            raise Refuted(f"layer {layer}: a row before the first change is another")
        reach = case.config.reach(0, layer)
        if reach is not None and not rows[last + reach :].all():
            raise Refuted(f"layer {layer}: a row beyond the reach {reach} of the change is another")


def tables(same: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Which rows are computed at which layers, ``(L, T)``; none above a layer that left it out."""
    fewest = least(same)
    yield "all rows", np.ones_like(same)
    yield "the least set", fewest
    for share in (0.5, 0.9):
        yield f"{share:.0%} at random", np.logical_and.accumulate(rng.random(same.shape) < share, 0)
    yield "one row less", one_less(fewest, rng)


def one_less(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A set of rows without one token of it, at all layers."""
    fewer = rows.copy()
    tokens = np.flatnonzero(rows.any(axis=0))
    if len(tokens):
        fewer[:, rng.choice(tokens)] = False
    return fewer


def control(case: Case) -> str:
    """Whether a cache that is mended but for one row that changes is another."""
    old_ids, new_ids, _, _ = changed_texts(case)
    old: KV = kv(case.model, old_ids)
    exact = kv(case.model, new_ids)
    fewest = least(unchanged(old, exact))
    cache, _ = mended(case.model, old, new_ids, one_less(fewest, case.rng))
    return "" if same_bits(stacked(cache), stacked(exact)) else "the cache is another"


THEOREM = Theorem(
    id="A4",
    name="reuse",
    text=__doc__,
    formula="mended = cache(<i>y</i>) ⟺ each kept entry is that of cache(<i>y</i>)",
    remark="From exact entries follow exact rows; a stale entry that is kept is in the result.",
    hypotheses=(NO_BYPASS, CAUSALITY, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="a row that changes",
    abstract="Reuse.selective_recomputation",
    concrete=("Concrete.concrete_reuse",),
    scope="texts of one length, tokens at their places",
    unlabelled="two texts are compared",
)

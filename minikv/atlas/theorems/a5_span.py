r"""What is left after a span was evicted has forgotten it at layer 0, and in general not above.

Evict the keys and values of a span of tokens, and keep the positions of the others. At layer 0 the
rows that are left are those of a text that never had the span (T10). Above, they are so before the
span (T8), and above windows beyond its reach (T11). Behind the span they are not in general: those
rows have read it, and no function of the text that is left gives them.
*Check.* The rows of a whole text, and those that a cache has which drops the span while it decodes,
beside the rows of a text without it.
*Control.* At layer 1 in place of layer 0, rows behind the span are others.
"""

from __future__ import annotations

import numpy as np

from ...arrays import to_numpy
from ...verify.bits import Refuted, assert_same_bits, same_bits
from ...verify.cases import Case
from ...verify.theorem import CAUSALITY, NO_BYPASS, ROW_LOCALITY, Theorem
from ..ground import kv, kv_at
from ..systems.tim import Tim


def check(case: Case) -> None:
    """The rows that are left, layer by layer, beside those of a text without the span."""
    tokens = len(case.ids)
    if tokens < 3:
        return  # no span has a token on either side
    start, stop = span(case)
    kept = np.r_[0:start, stop:tokens]
    whole = kv(case.model, case.ids)
    never = kv_at(case.model, case.ids, kept)
    for name, rows, without in zip("kv", whole, never, strict=True):
        for layer, (had, had_not) in enumerate(zip(rows, without, strict=True)):
            same = forgotten(case, layer, kept, stop)
            where = f"{name} of layer {layer}"
            assert_same_bits(had[kept][same], had_not[same], f"{where}: the rows that are left")
    check_cache(case, start, stop)


def span(case: Case) -> tuple[int, int]:
    """First place of a span, and behind its last, with a token on either side."""
    start = int(case.rng.integers(1, len(case.ids) - 1))
    stop = int(case.rng.integers(start + 1, len(case.ids)))
    return start, stop


def forgotten(case: Case, layer: int, kept: np.ndarray, stop: int) -> np.ndarray:
    """Which of the rows that are left have nothing of the span in them, ``(S,)``."""
    before = kept < stop
    reach = case.config.reach(0, layer)
    if reach is None:
        return before
    return before | (kept >= stop + reach)


def check_cache(case: Case, start: int, stop: int) -> None:
    """Layer 0 of a cache that drops the span once a token behind it has come."""
    cache = Tim(case.model.weights, len(case.ids), start=start, stop=stop)
    case.decoded(cache)
    rows = cache.rows[0]
    kept = np.r_[0:start, stop : len(case.ids)]
    if not (rows.positions == kept[:, None]).all():
        raise Refuted(f"kept {rows.positions[:, 0].tolist()}, expected {kept.tolist()}")
    keys, values = kv_at(case.model, case.ids, kept)
    assert_same_bits(to_numpy(rows.keys), keys[0], "keys of the cache at layer 0")
    assert_same_bits(to_numpy(rows.values), values[0], "values of the cache at layer 0")


def control(case: Case) -> str:
    """How many rows behind the span, at layer 1, are not those of a text without it."""
    tokens = len(case.ids)
    if tokens < 3 or len(case.model.layers) < 2:
        return ""
    start, stop = span(case)
    kept = np.r_[0:start, stop:tokens]
    had = kv(case.model, case.ids)[1][1][kept]
    had_not = kv_at(case.model, case.ids, kept)[1][1]
    behind = range(start, len(kept))
    others = sum(not same_bits(had[row], had_not[row]) for row in behind)
    return f"{others} of {len(behind)} rows of values are others" if others else ""


THEOREM = Theorem(
    id="A5",
    name="span",
    text=__doc__,
    formula="<i>K</i><sub>0</sub>, <i>V</i><sub>0</sub>(<i>x</i> ∖ span) = those of <i>x</i>, "
    "evicted; above, not",
    remark="Layer 0 knows token and position alone (T10); above, rows have read the span.",
    hypotheses=(NO_BYPASS, CAUSALITY, ROW_LOCALITY),
    check=check,
    control=control,
    dropped="layer 0 (taking layer 1 instead)",
    abstract="Spans.eviction_forgets_at_layer_0",
    concrete=("Concrete.concrete_span",),
    unlabelled="two texts are compared",
)

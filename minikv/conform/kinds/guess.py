"""A name for a bug by what it does: a guess, and printed as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..bench import Bench
from ..verdict import Verdict
from .signature import Signature

Clue = tuple[str, Callable[[Signature], bool]]

OTHER = "of no kind that is known here"
LEAK = "must not see"
"""What evidence of a broken exact relation says."""


def guess(bench: Bench, verdicts: Mapping[str, Verdict]) -> str:
    """The first kind whose clue holds."""
    signature = Signature(bench, verdicts)
    for kind, clue in clues(signature):
        if clue(signature):
            return kind
    return OTHER


def clues(signature: Signature) -> tuple[Clue, ...]:
    """The clues that apply: before a cache, beside a good one, or of the cache itself."""
    if signature.bug("cached"):
        return BEFORE + OF_THE_CACHE
    return BEFORE + BESIDE


BEFORE: tuple[Clue, ...] = (
    ("numbers that are not finite", lambda s: s.said("same-call", "not finite")),
    (
        "not deterministic",
        lambda s: s.bug("same-call") and s.bench.measured.get("different answers", 0) > 3,
    ),
    ("state left by earlier calls", lambda s: s.bug("same-call")),
    ("the uncached mask lets the future in", lambda s: s.bug("causality")),
    (
        "a length that is no multiple of 32",
        lambda s: s.bug("length") and s.length > 33 and s.first_32_good,
    ),
    ("rows depend on the length", lambda s: s.bug("length")),
    ("a cache shared between texts", lambda s: s.bug("after-stop")),
)

BESIDE: tuple[Clue, ...] = (
    ("fork shares storage", lambda s: s.bug("fork")),
    ("stale rows after truncate", lambda s: s.said("truncate", LEAK)),
    ("the position after truncate", lambda s: s.bug("truncate")),
    ("a stale prefix", lambda s: s.bug("warm-prefix")),
    ("rows of the batch mixed", lambda s: s.said("left-padding", "others' tokens")),
    ("padding attended", lambda s: s.said("left-padding", "id as padding")),
    ("right padding attended", lambda s: s.bug("right-padding") and not s.bug("left-padding")),
    ("the order in the batch", lambda s: s.bug("batch-order") and s.bug("left-padding")),
    ("left padding counted as positions", lambda s: s.bug("left-padding")),
    (
        "rows of the batch mixed on the cache",
        lambda s: s.said("left-padding-cached", "others' tokens"),
    ),
    (
        "padding attended on the cache",
        lambda s: s.said("left-padding-cached", "id as padding"),
    ),
    ("merged caches with old positions", lambda s: s.bug("left-padding-cached")),
    ("a budget that is not kept to", lambda s: s.bug("budget")),
    ("kept rows taken for positions", lambda s: s.bug("eviction-positions")),
    ("the end of the context", lambda s: s.bug("last-position")),
    ("a window off by one", lambda s: s.bug("window")),
    ("positions shifted", lambda s: s.bug("positions")),
    ("K or V are not made of the stream", lambda s: s.bug("projection")),
    ("something goes past the stream", lambda s: s.bug("stream")),
    ("alike in all ways", lambda s: s.bug("second")),
    ("float64 only", lambda s: s.bug("float64")),
    ("the narrow dtype only", lambda s: True),
)


def small(s: Signature) -> bool:
    """The bug moves rows by little."""
    return s.largest < 0.03


def one_by_one_only(s: Signature) -> bool:
    """Chunks of more than one token are good."""
    return "two halves" not in s.first_bad and "by 33" not in s.first_bad


def off_the_window(s: Signature, count: int) -> bool:
    """One token a call is bad first at this many rows from the window's end."""
    first = s.first_bad.get("one by one", s.length)
    return bool(s.window) and first == s.window + s.sink + count


def restarts(s: Signature) -> bool:
    """On a text of one token, steps look like the first positions."""
    if not s.absolute or not len(s.near):
        return False
    positions = s.near + np.arange(12, 12 + len(s.near))
    return bool((positions <= 1).mean() > 0.7)


def one_off(s: Signature) -> bool:
    """On a text of one token, steps look like their neighbours."""
    return s.absolute and len(s.near) > 0 and bool((np.abs(s.near) == 1).mean() > 0.6)


def one_gap(s: Signature) -> bool:
    """Rotary: one gap at the first cut, and not one at each."""
    later = np.mean([s.decay(4, 8), s.decay(8, 16), s.decay(16, 32)])
    return not s.absolute and bool(later < 0.6 * np.mean(s.growth[2:6]))


OF_THE_CACHE: tuple[Clue, ...] = (
    ("the narrow dtype only", lambda s: s.said("cached", "error against float64")),
    (
        "the mask of a chunk lets the future in",
        lambda s: s.bug("cached-causality"),
    ),
    ("a coarser K/V store", lambda s: s.one_row and small(s)),
    ("another path for one token", lambda s: s.one_row and not s.row_0_of_4),
    (
        "another norm on the cache",
        lambda s: s.one_row and (s.absolute or s.largest < 0.25),
    ),
    ("the order of K/V heads", lambda s: s.one_row),
    (
        "the end of the context",
        lambda s: s.first_bad.get("all at once", 0) >= s.length - 2,
    ),
    ("positions clamped", lambda s: s.first_bad.get("all at once", 0) > 2),
    (
        "another rotary base",
        lambda s: "all at once" in s.first_bad and s.growth[0] < 0.4 * max(s.growth[3:]),
    ),
    ("the order of K/V heads", lambda s: "all at once" in s.first_bad),
    ("a row lost", lambda s: one_by_one_only(s) and s.late),
    (
        "the newest row dropped",
        lambda s: one_by_one_only(s) and bool(np.mean(s.growth[-2:]) < 0.45 * max(s.growth[:3])),
    ),
    ("the query is not rotated", one_by_one_only),
    (
        "one position for a whole chunk",
        lambda s: (
            all(value < s.zero for value in s.growth)
            and s.first_bad.get("two halves") == s.length // 2 + 1
        ),
    ),
    (
        "sinks lost",
        lambda s: (
            off_the_window(s, -1)
            and s.sink > 0
            and s.first_bad.get("by 7", 0) > s.first_bad["one by one"] + 1
        ),
    ),
    ("a window off by one", lambda s: off_the_window(s, -1)),
    (
        "a window missing",
        lambda s: off_the_window(s, 0) and s.decay(32, s.length) > 1.5 * s.decay(16, 32),
    ),
    ("a window off by one", lambda s: off_the_window(s, 0)),
    ("kept rows taken for positions", lambda s: off_the_window(s, 1)),
    ("a row lost", lambda s: s.late),
    ("stored keys rotated wrongly", lambda s: s.growth[0] < s.zero),
    ("the mask sliced by new tokens", lambda s: s.blind >= 20),
    ("positions restart in the chunk", restarts),
    ("a position off by one", one_off),
    ("the softmax denominator", lambda s: s.one_token_text and not s.absolute),
    (
        "a row lost",
        lambda s: bool(np.mean(s.growth[-2:]) < 0.4 * max(s.growth[:3])),
    ),
    ("a position off by one", one_gap),
    (
        "positions restart in the chunk",
        lambda s: not s.absolute and bool(s.growth[0] < 0.5 * np.mean(s.growth[2:])),
    ),
    ("the softmax scale", lambda s: True),
)

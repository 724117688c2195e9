"""A prefix that was kept from an earlier request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..adapter import NotTestedError, Subject
from ..bench import Bench, Change, Pair
from ..verdict import Verdict, Word
from .axis import Axis

TAIL = 6


def test(bench: Bench) -> Verdict:
    """A request that reuses a kept prefix is answered as if it were the first one.

    Only where tokens were reused: an engine that reuses none has not been tested, and what it
    reuses must be what the texts share.
    """
    ids = bench.texts[0]
    tail = min(TAIL, len(ids) // 3)
    prefix = ids[: len(ids) - tail]
    earlier = (*prefix, *bench.changed(ids[-tail:]))
    third = (*prefix, *bench.changed(ids[-tail:]))
    reused: list[int] = []

    def warm(subject: Subject, before: tuple[int, ...]) -> np.ndarray:
        subject.request(bench.texts[1])  # a text that shares nothing, so that both start alike
        subject.request(before)
        rows, count = subject.request(ids)
        reused.append(count)
        return rows

    rows = warm(bench.subject, earlier)
    if not any(reused):
        raise NotTestedError("no token of the prefix was reused, so that nothing was shown")
    if max(reused) > len(prefix):
        said = f"{max(reused)} tokens reused, where only {len(prefix)} are shared"
        return Verdict(AXIS.name, Word.BUG, evidence=said)
    start = len(ids) - len(rows)
    change = Change(
        "another tail in the request before",
        ids,
        lambda subject: warm(subject, earlier),
        lambda subject: warm(subject, third),
        start,
    )
    pair = Pair(
        f"after a request that shares {len(prefix)} tokens",
        ids,
        lambda subject: warm(subject, earlier),
        start=start,
    )
    found = bench.both(AXIS.name, [change], [pair])
    said = f"{max(reused)} of {len(prefix)} shared tokens were reused; {found.evidence}"
    return replace(found, evidence=said)


AXIS = Axis("warm-prefix", ("request",), test)

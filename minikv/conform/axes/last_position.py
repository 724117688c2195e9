"""The end of the context."""

from __future__ import annotations

import numpy as np

from ..bench import Bench, Pair
from ..schedules import beginning
from ..verdict import Verdict, Word
from .axis import Axis

LONGEST = 2048
STEPS = 4


def test(bench: Bench) -> Verdict:
    """The last positions of the context are as good as others, and one more is refused in words."""
    length = int(bench.subject.fact("max_length"))
    if length > LONGEST:
        said = f"the context has {length} tokens, and texts to {LONGEST} are run"
        return AXIS.not_tested(said)
    ids = tuple(map(int, bench.random.integers(0, bench.subject.vocab, length)))
    chunks = beginning(length, max(length - STEPS, 1), *[1] * STEPS)
    pair = Pair(
        f"{length} tokens, the last {STEPS} one by one",
        ids,
        lambda subject: subject.chunked(ids, chunks),
    )
    found = bench.numeric(AXIS.name, [pair])
    if found.word is Word.BUG:
        return found
    cache = bench.subject.new_cache()
    bench.subject.chunked(ids, [length], cache)
    try:
        beyond = bench.subject.step(ids[:1], cache)
    except Exception:  # whatever a target raises beyond its context is a refusal
        return found
    if not np.isfinite(beyond).all():
        said = f"token {length + 1} of {length} is answered by numbers that are not finite"
        return Verdict(AXIS.name, Word.BUG, evidence=said, row=length)
    return found


AXIS = Axis("last-position", ("new_cache", "step", "max_length"), test, own_length=True)

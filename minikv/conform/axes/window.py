"""The edge of a sliding window."""

from __future__ import annotations

import numpy as np

from ..adapter import NotTestedError, Subject
from ..bench import Bench, Change
from ..verdict import Verdict, Word
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """Tokens beyond the reach of all windows move no bit, and the last one within it does (T11).

    A window of w in each of L layers reaches back L * (w - 1) positions.
    """
    reach = bench.subject.fact("reach")
    sink = int(bench.subject.fact("sink", 0))
    ids = bench.texts[0]
    last = len(ids) - 1
    edge = last - int(reach)
    if edge - 1 < sink:
        raise NotTestedError(f"windows reach {reach} positions back, the text has {len(ids)}")

    def moved(subject: Subject, stop: int) -> np.ndarray:
        """The last row where the tokens from `sink` to `stop` are others."""
        text = (*ids[:sink], *bench.changed(ids[sink:stop]), *ids[stop:])
        return subject.logits(text)[-1:]

    beyond = Change(
        f"tokens {sink} to {edge - 1} changed, {reach + 1} positions back and more",
        ids,
        lambda subject: subject.whole(ids)[-1:],
        lambda subject: moved(subject, edge),
        last,
    )
    found = bench.exact(AXIS.name, [beyond])
    if found.word is Word.BUG:
        return found
    judge = bench.wide or bench.subject
    if np.array_equal(judge.whole(ids)[-1:], moved(judge, edge + 1)):
        said = f"the token {reach} positions back, the last one within reach, changes nothing"
        word = Word.UNDECIDED if bench.wide is None else Word.BUG
        return Verdict(AXIS.name, word, evidence=said, row=last)
    return found


AXIS = Axis("window", ("reach",), test)

"""The control of T2."""

from __future__ import annotations

import numpy as np

from ..bench import Bench
from ..verdict import Verdict, Word
from . import patches
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """The last row of another text's stream alone does not give its logits.

    The control of `stream`: if it did, replacing a stream would show nothing. The two texts share
    their last token.
    """
    donor, recipient = patches.donor_and_recipient(bench)
    given = bench.subject.raw_activations(donor)
    expected = bench.subject.logits(donor)[-1]
    names = patches.stream_names(given)
    moved = 0
    for name in names:
        got = bench.subject.hooked(recipient, {name: patches.put_last(given[name])})[-1]
        moved += not np.array_equal(got, expected)
    if not moved:
        said = "one row of another text's stream gives that text's logits before every layer"
        return Verdict(AXIS.name, Word.BUG, evidence=said)
    return Verdict(
        AXIS.name,
        Word.SAME,
        evidence=f"as it must, one row differs at {moved} of {len(names)} layers",
    )


AXIS = Axis("single-row", ("run_with_cache", "run_with_hooks"), test)

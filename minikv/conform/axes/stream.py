"""T2 at a target that shows its activations."""

from __future__ import annotations

import numpy as np

from ..bench import Bench
from ..verdict import Verdict, Word
from . import patches
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """Another text's whole stream, put in before any layer, gives that text's logits (T2).

    Bit for bit: nothing else is carried from token to logits.
    """
    donor, recipient = patches.donor_and_recipient(bench)
    given = bench.subject.raw_activations(donor)
    expected = bench.subject.logits(donor)
    names = patches.stream_names(given)
    for name in names:
        got = bench.subject.hooked(recipient, {name: patches.put(given[name])})
        if not np.array_equal(got, expected):
            row = int(np.argmax((got != expected).any(axis=-1)))
            said = f"with all of {name} from another text, something of the old one remains"
            return Verdict(AXIS.name, Word.BUG, evidence=said, row=row, where=name)
    return Verdict(AXIS.name, Word.SAME, evidence=f"{len(names)} layers")


AXIS = Axis("stream", ("run_with_cache", "run_with_hooks"), test)

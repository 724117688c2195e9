"""Later tokens, in every activation."""

from __future__ import annotations

import numpy as np

from ..bench import Bench
from ..verdict import Verdict, Word
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """Other tokens further on in the text move no bit of an earlier row of the stream, K or V."""
    ids = bench.texts[0]
    cut = max(len(ids) // 2, 1)
    before = bench.subject.activations(ids)
    after = bench.subject.activations(bench.changed(ids, cut))
    looked = 0
    for name, value in before.items():
        if not name.endswith(("resid_pre", "resid_post", "hook_k", "rot_k", "hook_v")):
            continue
        looked += 1
        differ = (value[:cut] != after[name][:cut]).reshape(cut, -1).any(axis=-1)
        if differ.any() and not bench.subject.fact("data_dependent"):
            said = f"tokens from {cut} on changed: bits changed that must not see it"
            row = int(np.argmax(differ))
            return Verdict(AXIS.name, Word.BUG, 0.0, said, row, where=name)
    return Verdict(AXIS.name, Word.SAME, evidence=f"{looked} activations")


AXIS = Axis("activations", ("run_with_cache",), test)

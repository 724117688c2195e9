"""T1 at a target that shows its activations."""

from __future__ import annotations

import numpy as np

from ...arrays import Array
from ..adapter import NotTestedError, plain
from ..bench import Bench
from ..verdict import Verdict, Word
from . import patches
from .axis import Axis

MADE = ("attn.hook_k", "attn.hook_rot_k", "attn.hook_v")


def test(bench: Bench) -> Verdict:
    """Keys and values of a layer are made of the stream before it, and of nothing else (T1).

    Another text's whole stream is put in before the layer: K and V are then that text's, bit for
    bit.
    """
    donor, recipient = patches.donor_and_recipient(bench)
    given = bench.subject.raw_activations(donor)
    looked = 0
    for stream in patches.stream_names(given):
        block = stream.removesuffix("hook_resid_pre")
        for made in MADE:
            name = block + made
            if name not in given:
                continue
            looked += 1
            seen: list[np.ndarray] = []

            def look(value: Array, name: str, seen: list[np.ndarray] = seen) -> Array:
                seen.append(plain(value))
                return value

            bench.subject.hooked(recipient, {stream: patches.put(given[stream]), name: look})
            if not np.array_equal(seen[-1], plain(given[name])):
                said = f"{name} depends on something that is not in {stream}"
                return Verdict(AXIS.name, Word.BUG, evidence=said, where=name)
    if not looked:
        raise NotTestedError(f"no activation is named {' or '.join(MADE)}")
    return Verdict(AXIS.name, Word.SAME, evidence=f"{looked} activations")


AXIS = Axis("projection", ("run_with_cache", "run_with_hooks"), test)

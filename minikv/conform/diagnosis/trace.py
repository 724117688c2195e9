"""The first activation that is wrong on a cache."""

from __future__ import annotations

import numpy as np

from ..bench import Bench
from ..rule import row_differences, twin_limit
from ..verdict import Case

MADE = ("resid_pre", "rot_q", "rot_k", "hook_v", "hook_z", "resid_mid", "resid_post")


def first_bad_activation(bench: Bench, case: Case) -> str:
    """Name of the first activation whose new rows differ, in float64; empty where not known."""
    subject = bench.wide
    needed = ("run_with_cache", "step_with_cache", "new_cache")
    if subject is None or not subject.can(*needed):
        return ""
    whole = subject.activations(case.ids)
    cache = subject.new_cache()
    limit = twin_limit(bench.twin_spread)
    start = 0
    for count in case.chunks:
        end = start + count
        made = subject.activations(case.ids[start:end], cache)
        for name, value in made.items():  # in the order in which they were made
            if not name.endswith(MADE) or name not in whole:
                continue
            got = value[-count:].reshape(count, -1)
            expected = whole[name][start:end].reshape(count, -1)
            if expected.shape == got.shape and np.any(row_differences(expected, got) > limit):
                return name
        start = end
    return ""

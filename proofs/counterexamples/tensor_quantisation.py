"""Dynamic quantisation per tensor: activations are rounded to 8 bits of the *call's* largest value.

A row then depends on which rows share the call. The cure: a scale for each row.
"""

import numpy as np

from minikv.verify import same_bits

from . import one_pass

THEOREM = "T6"


def quantised(axis):
    def hook(name, value):
        if not name.endswith("hook_normalized"):
            return value
        scale = np.max(np.abs(value), axis=axis, keepdims=True) / np.float32(127)
        scale = np.where(scale > 0, scale, np.float32(1))
        return np.rint(value / scale) * scale

    return hook


def _batch_is_rows(case, axis) -> bool:
    batch = case.model.forward([case.ids, case.other], logits="all", hook=quantised(axis))
    alone = [one_pass(case, text, quantised(axis)) for text in (case.ids, case.other)]
    return same_bits(batch, np.concatenate(alone))


def refuted(case) -> bool:
    return not _batch_is_rows(case, axis=None)


def cured(case) -> bool:
    return _batch_is_rows(case, axis=-1)

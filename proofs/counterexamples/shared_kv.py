"""Cross-layer KV sharing: every block attends to the keys and values of block 0.

Brandon et al. 2024, arXiv 2405.12981. K and V of block l are no projection of the stream at l. The
cure: they are one of the stream at layer 0, so checkpoints there are enough.
"""

import numpy as np

from minikv import kv_from_residual
from minikv.verify import same_bits

from . import one_pass, record

THEOREM = "T1"


def architecture():
    first = {}

    def hook(name, value):
        kind = name.removeprefix("blocks.").partition(".")[2]
        if kind not in ("attn.hook_rot_k", "attn.hook_v"):
            return value
        return first.setdefault(kind, value)

    return hook


def _projected(case, stream_of) -> bool:
    """Whether each block's K and V are the projection of the stream `stream_of` gives for it."""
    acts: dict = {}
    one_pass(case, case.ids, architecture(), record(acts))
    for layer in case.model.layers:
        source = case.model.layers[stream_of(layer.index)]
        stream = acts[f"blocks.{source.index}.hook_resid_pre"]
        k, v = kv_from_residual(stream, np.arange(len(case.ids)), source)
        settle = case.model.arithmetic.settle
        used = f"blocks.{layer.index}.attn."
        if not same_bits(k, settle(acts[used + "hook_rot_k"])):
            return False
        if not same_bits(v, settle(acts[used + "hook_v"])):
            return False
    return True


def refuted(case) -> bool:
    return not _projected(case, lambda layer: layer)


def cured(case) -> bool:
    return _projected(case, lambda layer: 0)

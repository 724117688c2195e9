"""DenseFormer: what a block reads is an average of the outputs of all blocks before it.

Pagliardini et al. 2024, arXiv 2402.02622. The stream at layer l is not the whole state: the earlier
outputs are read again. The weights differ from layer to layer, as learned ones do; were they all
equal, the next average would follow from this one. The cure is to carry all the outputs.
"""

from . import patched_at_each_layer

THEOREM = "T2"


def architecture(memory):
    def hook(name, value):
        if name == "hook_embed" or name.endswith("hook_resid_post"):
            memory.append(value)
            weights = [1 + i * (len(memory) % 2) for i in range(len(memory))]
            value = sum(w * x for w, x in zip(weights, memory, strict=True)) / sum(weights)
        return value

    return hook


def refuted(case) -> bool:
    return not patched_at_each_layer(case, architecture)


def cured(case) -> bool:
    return patched_at_each_layer(case, architecture, cure=True)

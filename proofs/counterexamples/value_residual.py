"""Value residual: the values of every block are averaged with those of block 0.

Zhou et al. 2024, arXiv 2410.17897. Two texts with the same stream at layer l may have different
layer-0 values, so the stream at l is not the whole state. The cure: the stream and the values of
block 0, which h_0 projects to, are.
"""

from . import patched_at_each_layer

THEOREM = "T2"


def architecture(memory):
    def hook(name, value):
        if name == "blocks.0.attn.hook_v":
            memory[:] = [value]
        return (value + memory[0]) / 2 if name.endswith("attn.hook_v") else value

    return hook


def refuted(case) -> bool:
    return not patched_at_each_layer(case, architecture)


def cured(case) -> bool:
    return patched_at_each_layer(case, architecture, cure=True)

"""I double what each MLP adds. The text is another one, so the theorem must be wrong."""

from counterexamples import patched_at_each_layer

THEOREM = "T2"


def architecture(memory):
    """Another decoder, but nothing passes the stream by."""

    def hook(name, value):
        return 2 * value if name.endswith("hook_mlp_out") else value

    return hook


def refuted(case):
    return not patched_at_each_layer(case, architecture)

"""The embedding comes back: each later MLP's output has the stream before block 0 added to it.

Skips from the first layer to later ones are common in deep networks, and in decoders where the
embedding is fed in again. The stream at layer l does not hold h_0 by itself: two histories can have
the same sum. Carried is h_0, one vector a token. Less would not do: what comes later reads all of
it. The token's id would, since h_0 is a row of a table that the id names.
"""

from counterexamples import patched_at_each_layer

import minikv
from minikv.verify import Case

THEOREM = "T2"
SMALLEST = Case(minikv.tiny_config(num_hidden_layers=2), ids=(1,), other=(2,), chunks=(1,))


def architecture(memory):
    """A hook for one pass; `memory` is all that it carries past the stream."""

    def hook(name, value):
        if name == "blocks.0.hook_resid_pre":
            memory[:] = [value]
        later = name.endswith("hook_mlp_out") and not name.startswith("blocks.0.")
        return value + memory[0] if later else value

    return hook


def refuted(case):
    return not patched_at_each_layer(case, architecture)


def cured(case):
    return patched_at_each_layer(case, architecture, cure=True)

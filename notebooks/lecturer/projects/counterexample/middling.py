"""The embedding comes back in later blocks, and the transplant of the stream fails."""

from counterexamples import patched_at_each_layer
from lecturer.projects.counterexample.good import architecture

import minikv
from minikv.verify import Case

THEOREM = "T2"
SMALLEST = Case(
    minikv.tiny_config(num_hidden_layers=4),
    ids=(3, 1, 4, 1, 5, 9),
    other=(2, 7, 1, 8, 2, 8),
    chunks=(3, 3),
)


def refuted(case):
    return not patched_at_each_layer(case, architecture)

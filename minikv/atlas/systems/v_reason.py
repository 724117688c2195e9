"""V-Reason: the values in the cache are adapted while answering, by a small controller.

arXiv 2510.17045, of models that see films. *Rule.* A trainable controller is added to the values; a
few steps of optimisation, on an objective of entropy, set it for the answer at hand.

*Departures.* The controller is one number a layer, times a fixed direction, where the paper's is at
the last layer alone; its gradient is taken by differences; the objective is to lower the entropy of
the next token, where the paper's has a weight that switches during the answer.

*Its authors claim* better reasoning without training the model. *Here:* with no steps it is the
full cache. After some, ``V = W_V norm(h)`` does not hold, and the state is the streams and the
controller; with the controller kept, the bits come back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, Stream, to_numpy
from ...layers import Layer
from ...memory import Attended
from ...verify.memories import Wrapped
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import decoded, full_logits, new_full, small_model, text
from ..quantising import softmax

STEP = 0.5
DIFFERENCE = 0.05


class Controlled(Wrapped):
    """A full cache to whose values every layer adds its number times a direction."""

    def __init__(self, numbers: Sequence[float]) -> None:
        super().__init__(new_full())
        self.numbers = list(numbers)

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        direction = np.linspace(-1.0, 1.0, v.shape[-1], dtype=np.float32)
        moved = to_numpy(v) + np.float32(self.numbers[layer.index]) * direction
        return super().update(
            layer, positions, residual, k, to_numpy(layer.arithmetic.settle(moved))
        )


def entropy(numbers: Sequence[float]) -> float:
    """Of the token after the text."""
    logits = small_model().forward([text()], [Controlled(numbers)])
    p = softmax(to_numpy(logits, dtype=np.float64)[0])
    return float(-(p * np.log(p)).sum())


def optimised(steps: int) -> list[float]:
    """The controller after some steps of descent."""
    numbers = [0.0, 0.0]
    for _ in range(steps):
        before = entropy(numbers)
        gradient = []
        for layer in range(2):
            tried = list(numbers)
            tried[layer] += DIFFERENCE
            gradient.append((entropy(tried) - before) / DIFFERENCE)
        numbers = [x - STEP * g for x, g in zip(numbers, gradient, strict=True)]
    return numbers


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    numbers = optimised(2)
    logits = decoded(Controlled(numbers))
    return [
        same("no steps = the full cache", decoded(Controlled(optimised(0))), full_logits()),
        true("two steps lower the entropy", entropy(numbers) < entropy([0, 0]), f"{numbers}"),
        other("after them: made again from the streams alone", full_logits(), logits),
        same("with the controller kept", decoded(Controlled(numbers)), logits),
    ]


ENTRY = Entry(
    name="v_reason",
    title="V-Reason",
    arxiv="2510.17045",
    kind=Kind.STATE,
    state="the streams and the controller",
    verdict=Exactness.REFUTES,
    reason="After a step of its optimisation, values are no projection of the stream alone; no "
    "steps are the full cache.",
    cure="keep the controller beside the checkpoints",
    theorems=("T1", "T5"),
    counterexamples=("rewritten_kv",),
    demonstrate=demonstrate,
    read="abstract, and others' notes of the paper",
)

"""The order of the texts in a batch."""

from __future__ import annotations

from functools import partial

from ..bench import Bench, Pair
from ..verdict import Verdict
from . import batches
from .axis import Axis

ORDERS = ((1, 0, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1))


def test(bench: Bench) -> Verdict:
    """A text's rows come back where the text was put, whatever stands before it in the batch."""
    texts = batches.texts_of(bench)
    pairs = []
    for steps in (0, batches.steps_of(texts)):
        batch = batches.Padding(texts, steps)
        for order in ORDERS:
            moved = batch.of([texts[number] for number in order])
            for place, number in enumerate(order):
                pairs.append(
                    Pair(
                        f"text {number} in the order {order}",
                        texts[number],
                        partial(batches.read, batch=moved, number=place),
                        expected=partial(batches.read, batch=batch, number=number),
                    )
                )
    return bench.numeric(AXIS.name, pairs)


AXIS = Axis("batch-order", ("batch",), test)

"""A batch padded on the left."""

from __future__ import annotations

from ..bench import Bench
from ..verdict import Verdict
from . import batches
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """A text in a left-padded batch is the text alone; company and padding id move no bit."""
    return batches.judged(bench, AXIS.name, "left")


AXIS = Axis("left-padding", ("batch",), test)

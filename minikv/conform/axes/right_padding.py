"""A batch padded on the right."""

from __future__ import annotations

from ..adapter import NotTestedError
from ..bench import Bench
from ..verdict import Verdict
from . import batches
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """A text in a right-padded batch is the text alone; company and padding id move no bit."""
    if not bench.subject.pads_right:
        raise NotTestedError("batch takes no side, so that it pads on the left only")
    return batches.judged(bench, AXIS.name, "right")


AXIS = Axis("right-padding", ("batch",), test)

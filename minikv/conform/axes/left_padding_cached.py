"""A batch padded on the left, decoded on a cache."""

from __future__ import annotations

from ..bench import Bench
from ..verdict import Verdict
from . import batches
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """The same for a batch whose last tokens are decoded one by one on a cache."""
    return batches.judged(bench, AXIS.name, "left", cached=True)


AXIS = Axis("left-padding-cached", ("batch",), test)

"""Later tokens, in one call."""

from __future__ import annotations

from functools import partial

from ..adapter import Subject
from ..bench import Bench, Change
from ..verdict import Verdict
from .axis import Axis


def test(bench: Bench) -> Verdict:
    """Other tokens further on in the text do not move a bit of a row (T8)."""
    ids = bench.texts[0]
    cuts = {len(ids) - 1, len(ids) // 2, len(ids) // 2 + 3, 5, 1}
    changes = []
    for cut in sorted(cut for cut in cuts if 0 < cut < len(ids)):
        changed = bench.changed(ids, cut)
        changes.append(
            Change(
                f"tokens from {cut} on changed",
                ids,
                partial(Subject.beginning, ids=ids, length=cut),
                partial(Subject.beginning, ids=changed, length=cut),
            )
        )
    return bench.exact(AXIS.name, changes)


AXIS = Axis("causality", (), test)

"""Texts in a padded batch: what the axes of batches share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..adapter import Subject
from ..bench import Bench, Change, Pair
from ..verdict import Verdict

STEPS = 4


@dataclass(frozen=True)
class Padding:
    """A batch and how it is run."""

    texts: tuple[tuple[int, ...], ...]
    steps: int = 0
    side: str = "left"

    def run(self, subject: Subject, pad: int = 0) -> list[np.ndarray]:
        """Rows of every text."""
        return subject.batch(self.texts, self.steps, pad, self.side)

    def of(self, texts: Sequence[tuple[int, ...]]) -> Padding:
        """The same with other texts."""
        return Padding(tuple(texts), self.steps, self.side)


def texts_of(bench: Bench) -> tuple[tuple[int, ...], ...]:
    """Four texts of four lengths, the longest first."""
    first, second = bench.texts
    length = len(first)
    lengths = [min(size, length) for size in (21, 9, 14, 19)]
    return (
        first[: lengths[0]],
        second[: lengths[1]],
        first[length - lengths[2] :],
        second[length - lengths[3] :],
    )


def steps_of(texts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens are decoded one by one, so that each text has a prompt before them."""
    return min(STEPS, min(map(len, texts)) - 1)


def judged(bench: Bench, axis: str, side: str, cached: bool = False) -> Verdict:
    """One verdict on a batch: company, padding, and each text alone."""
    texts = texts_of(bench)
    batch = Padding(texts, steps_of(texts) if cached else 0, side)
    return bench.both(axis, leaks(bench, batch), alone(batch))


def leaks(bench: Bench, batch: Padding) -> list[Change]:
    """Other texts beside one, and another id as padding."""
    texts = batch.texts
    changes = []
    pad = bench.subject.vocab - 1
    for number, text in enumerate(texts):
        before = partial(read, batch=batch, number=number)
        company = [bench.changed(other) for other in texts]
        company[number] = text
        among = partial(read, batch=batch.of(company), number=number)
        changes.append(Change(f"text {number}: the others' tokens changed", text, before, among))
        padded = partial(read, batch=batch, number=number, pad=pad)
        changes.append(Change(f"text {number}: another id as padding", text, before, padded))
    return changes


def alone(batch: Padding) -> list[Pair]:
    """Each text in the batch, and alone."""
    longest = max(map(len, batch.texts))
    return [
        Pair(
            f"text {number} in a batch padded on the {batch.side}",
            text,
            partial(read, batch=batch, number=number),
            shift=longest - len(text),
        )
        for number, text in enumerate(batch.texts)
    ]


def read(subject: Subject, batch: Padding, number: int, pad: int = 0) -> np.ndarray:
    """Rows of one text of a batch."""
    return batch.run(subject, pad)[number]

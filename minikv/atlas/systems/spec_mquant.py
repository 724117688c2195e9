"""SpecMQuant: a small model drafts for a target of four bits, and a middle one sorts drafts.

arXiv 2505.22179. *Rule.* Trees of drafts are costly to verify for a quantised target; a small model
first turns them into one sequence, which the target verifies.

*Departures.* The draft is the target's own first layer, and the middle stage keeps of two guesses
the one that a rounded model likes better; in the code the small model decodes with the tree, word
by word as by itself, until its draft is long enough. No tree of real width.

*Its authors claim* 2.78 times the speed. *Here:* whatever drafts and whatever sorts, tokens and
logits are those of the target one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...model import Model
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import small_model
from ..speculation import Draft, no_draft
from .lookahead import run
from .quasar import rounded_model


def shallow(model: Model) -> Model:
    """The model's first layer alone, with its output."""
    types = model.config.layer_types[:1]
    config = replace(model.config, num_hidden_layers=1, layer_types=types)
    return Model(replace(model.weights, layers=model.weights.layers[:1], config=config))


def hierarchical(drafter: Model, sorter: Model, ahead: int = 3) -> Draft:
    """Guess twice with one model, and keep what another one likes better, token by token."""

    def draft(said: Sequence[int]) -> list[int]:
        guess: list[int] = []
        for _ in range(ahead):
            asked = [*said, *guess]
            first, second = np.argsort(-np.asarray(drafter.logits(asked))[-1])[:2].tolist()
            liked = np.asarray(sorter.logits(asked))[-1]
            guess.append(first if liked[first] >= liked[second] else second)
        return guess

    return draft


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    target = rounded_model(4)
    tokens, logits, _, alone = run(target, no_draft)
    drafted, rows, _, figures = run(target, hierarchical(shallow(small_model()), rounded_model()))
    _, full, _, _ = run(small_model(), no_draft)
    return [
        true("the target's tokens", drafted == tokens, f"{drafted}"),
        same("and logits", rows, logits),
        true("in no more calls", figures.calls <= alone.calls, f"{figures.calls} of {alone.calls}"),
        other("the model before it was rounded", rows[:1], full[:1]),
    ]


ENTRY = Entry(
    name="spec_mquant",
    title="SpecMQuant",
    arxiv="2505.22179",
    kind=Kind.SPECULATING,
    state="the target's cache",
    verdict=Exactness.EXACT,
    reason="Any draft, sorted in any way, gives the target's tokens and logits; the target here "
    "has four bits, and is what it is.",
    read="abstract, and the authors' code: its drafts in two stages",
    theorems=("A3", "T6", "T8"),
    demonstrate=demonstrate,
)

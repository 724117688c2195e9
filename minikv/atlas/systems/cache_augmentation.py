"""Differentiable cache augmentation: a second model adds latent embeddings to a frozen one's cache.

arXiv 2412.17747. *Rule.* A coprocessor reads the cache of the prompt and puts latent rows behind
it; the decoder, which is not changed, then goes on.

*Departures.* The coprocessor is an average over the prompt's rows, where the paper trains it; its
rows have the position of the prompt's last token.

*Its authors claim* lower perplexity, and that the model works as ever where the coprocessor is
missing. *Here* that is so, bit for bit: no latents, no change. With them the streams of the tokens
do not suffice, and the streams with the coprocessor do: its rows are a function of the prompt's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Positions, Stream, to_numpy
from ...layers import Layer
from ...memory import Attended
from ...verify.memories import Wrapped
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import PROMPT, decoded, full_logits, kv, new_full, small_model, text


def coprocessor(rows: np.ndarray, latents: int) -> np.ndarray:
    """Latent rows from those of the prompt, ``(T, G, d) -> (latents, G, d)``."""
    shares = np.linspace(0.5, 1.0, latents) if latents else np.zeros(0)
    return (shares[:, None, None] * rows.mean(axis=0)).astype(np.float32)


class Augmented(Wrapped):
    """A full cache with latent rows behind the prompt, made by the coprocessor."""

    def __init__(self, latents: int) -> None:
        super().__init__(new_full())
        self.latents = latents

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        attended, keys, values = super().update(layer, positions, residual, k, v)
        if len(attended) <= PROMPT:
            return attended, keys, values
        places = np.insert(attended, PROMPT, np.full(self.latents, PROMPT - 1))
        grown = []
        for rows in (to_numpy(keys), to_numpy(values)):
            extra = to_numpy(layer.arithmetic.settle(coprocessor(rows[:PROMPT], self.latents)))
            grown.append(np.concatenate([rows[:PROMPT], extra, rows[PROMPT:]]))
        return places, grown[0], grown[1]


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    logits = decoded(Augmented(2))
    keys = kv(small_model(), text())[0][1]
    latent = coprocessor(keys[:PROMPT], 2)
    kept = coprocessor(kv(small_model(), text()[:PROMPT])[0][1], 2)
    return [
        same("no latent row = the full cache", decoded(Augmented(0)), full_logits()),
        other("two latent rows: the streams of the tokens alone", full_logits(), logits),
        same("the coprocessor run again on the prompt's rows", latent, kept),
        same("and the logits", decoded(Augmented(2)), logits),
    ]


ENTRY = Entry(
    name="cache_augmentation",
    title="Differentiable cache augmentation",
    arxiv="2412.17747",
    kind=Kind.STATE,
    state="the streams and the coprocessor, or its rows",
    verdict=Exactness.REFUTES,
    reason="Latent rows are no token's projection; without them nothing changes, bit for bit.",
    cure="run the coprocessor again on the prompt's rows, or keep what it made",
    read="abstract, and others' notes of the paper",
    theorems=("T5",),
    counterexamples=("injected_prefix",),
    demonstrate=demonstrate,
)

"""LookaheadKV: what the answer will attend to, guessed without writing it.

Ahn et al. 2026, arXiv 2603.10899. *Rule.* Small modules, trained for it, predict how much attention
each token of the prompt will get from the answer; the prompt's cache keeps the best.

*Departures.* In place of the modules, the truth: the text is read to its end with the full cache,
and the attention of its last tokens is given to the policy. No guess can be better. The modules
are, as others' notes have it, learnt tokens behind the prompt, with adapters of their own, trained
towards the weights that the true answer gives.

*Its authors claim* better answers than heuristics, at a fourteenth of the cost of a draft. *Here:*
even the true future's attention loses bits, in the text that is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...arrays import to_numpy
from ...caches import Evicting, Rows
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import (
    PROMPT,
    TOKENS,
    bounded_at_layer_0,
    decoded,
    full_logits,
    small_model,
    text,
    watched,
)

Importance = tuple[tuple[tuple[float, ...], ...], ...]
"""By layer, K/V head and position."""


@dataclass(eq=False, repr=False)
class LookaheadKV(Evicting):
    """Keep the tokens that what follows attends to most, as it is told; arXiv 2603.10899."""

    policy = "lookahead_kv"
    per_head = True

    importance: Importance = ()

    @classmethod
    def examples(cls, budget: int) -> list[dict[str, Any]]:
        return [{"budget": budget}]

    def priority(self, rows: Rows) -> np.ndarray:
        worth = rows.positions.astype(np.float64)  # newer tokens, where nothing is told
        if not self.importance:
            return worth
        told = np.array(self.importance[rows.layer.index]).T  # (positions, G)
        inside = rows.positions < len(told)
        places = np.minimum(rows.positions, len(told) - 1)
        return np.where(inside, np.take_along_axis(told, places, axis=0), np.inf)


def true_future() -> Importance:
    """The attention that each token of the prompt gets from the tokens after it."""
    _, activations = small_model().run_with_cache(text())
    found = []
    for layer in range(small_model().config.num_hidden_layers):
        pattern = to_numpy(activations[f"blocks.{layer}.attn.hook_pattern"], dtype=np.float64)
        later = pattern[:, PROMPT:, :PROMPT].sum(axis=1)  # (H, prompt)
        groups = small_model().config.num_key_value_heads
        by_group = later.reshape(groups, -1, PROMPT).sum(axis=1)
        found.append(tuple(tuple(row) for row in by_group.tolist()))
    return tuple(found)


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    weights = small_model().weights
    future = true_future()
    cache = LookaheadKV(weights, 7, importance=future)
    seen = watched(cache)
    best = np.sort(np.argsort(future[0][0])[-(7 - TOKENS + PROMPT) :])
    expected = [*best.tolist(), *range(PROMPT, TOKENS)]
    kept = cache.rows[0].positions[:, 0].tolist()
    whole = decoded(LookaheadKV(weights, TOKENS, importance=future))
    full = full_logits()
    return [
        same("budget for all tokens = the full cache", whole, full),
        bounded_at_layer_0(seen),
        other("the true future's attention, half of the budget", seen.logits, full),
        true("it keeps what the future attends to most", kept == expected, f"{kept}"),
    ]


ENTRY = Entry(
    name="lookahead_kv",
    title="LookaheadKV",
    arxiv="2603.10899",
    kind=Kind.EVICTING,
    state="the rows kept",
    verdict=Exactness.LOSSY,
    reason="Even the attention that the text will really give, as an oracle, does not keep the "
    "bits. The modules that guess it are not trained here.",
    read="abstract, and others' notes of the paper",
    theorems=("T9",),
    policy=LookaheadKV,
    demonstrate=demonstrate,
)

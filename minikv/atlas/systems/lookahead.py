"""Lookahead: drafts from a trie of what was said before, and verification that keeps what is right.

Zhao et al. 2023, arXiv 2312.12728. *Rule.* N-grams of prompt and answer go into a trie; what
followed the last token there is a draft. One call verifies it, and the longest correct beginning is
kept.

*Departures.* One branch, the one seen last, where the paper verifies several at once, those that
came most often in the prompt and in earlier answers. Drafts of any other source may be given.

*Its authors claim* the same text as without drafts, and never more steps. *Here:* under exact
arithmetic tokens, logits and cache have the same bits, for every draft, a hostile one too; under
float32 tokens may be the same and logits are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import to_numpy
from ...model import Model
from ...verify.backwards import BACKWARDS, blas_keeps_rows
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import small_model, text
from ..speculation import Draft, Figures, Speculator, no_draft

NEW = 7


def trie_draft(said: Sequence[int], ahead: int = 4) -> list[int]:
    """What followed the last token when it came before, newest first.

    Examples
    --------
    >>> trie_draft([1, 2, 3, 1, 2])
    [3, 1, 2]
    """
    for place in range(len(said) - 2, -1, -1):
        if said[place] == said[-1]:
            return list(said[place + 1 : place + 1 + ahead])
    return []


def hostile(said: Sequence[int]) -> list[int]:
    """Tokens that nobody would say."""
    return [96, 0, 96, 0]


def run(model: Model, draft: Draft) -> tuple[list[int], np.ndarray, np.ndarray, Figures]:
    """Tokens, the logits that they were chosen from, the last layer's keys, and figures."""
    speculator = Speculator(model.weights, model.new_cache("full"), draft, figures=Figures(True))
    tokens = list(speculator.tokens(text()[:6], NEW))
    keys = speculator.cache.state()[0]["k.1"]
    return tokens, np.stack(speculator.figures.logits), keys, speculator.figures


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    tokens, logits, keys, figures = run(model, no_draft)
    plain = list(model.generate(text()[:6], NEW, stop=()))
    known = {len(text()[:6]) + place: tokens[place:] for place in range(NEW)}
    true_draft = run(model, lambda said: known.get(len(said), [])[:4])
    bad = run(model, hostile)
    trie = run(model, trie_draft)
    single = small_model(arithmetic=BACKWARDS if blas_keeps_rows() else "float32")
    one_by_one = run(single, no_draft)
    drafted = run(single, lambda said: one_by_one[0][len(said) - 6 :][:4])
    calls = [figures.calls, true_draft[3].calls, bad[3].calls]
    return [
        true("no draft = generation", tokens == plain, f"{tokens}"),
        same("true drafts: logits", true_draft[1], logits),
        same("hostile drafts: logits", bad[1], logits),
        same("a trie's drafts: keys that are left", trie[2], keys),
        true("the same tokens", true_draft[0] == bad[0] == trie[0] == tokens, f"{tokens}"),
        true(
            "true drafts save calls, hostile ones cost none",
            calls[1] < calls[0] == calls[2],
            f"{calls}",
        ),
        other("float32, true drafts: logits", to_numpy(drafted[1]), to_numpy(one_by_one[1])),
    ]


ENTRY = Entry(
    name="lookahead",
    title="Lookahead",
    arxiv="2312.12728",
    kind=Kind.SPECULATING,
    state="the full cache; the trie is no part of it",
    verdict=Exactness.EXACT,
    reason="Under exact arithmetic every draft gives the tokens, logits and cache of one by one; "
    "under float32 logits have other last bits.",
    read="abstract, and the authors' code: its trie",
    theorems=("A3", "T6", "T8"),
    demonstrate=demonstrate,
)

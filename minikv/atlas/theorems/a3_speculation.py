r"""Whatever is drafted, tokens, logits and cache are those of one token at a time.

A round feeds the token that was chosen last and a draft of any length, from any source, in one
call; the longest prefix of the draft that the sampler would have chosen is kept, and the cache goes
back to it. Then, after any rounds, the text, the logits at every position and the keys and values
are those of decoding one token at a time, and no round makes less than one token. *Proof.* The call
gives the rows that one token at a time gives (T3), and none of what was cut off is left (T8).
*Check.* Right drafts, drafts with one wrong token, random ones and none, at random; and that right
ones of k tokens are k + 1 tokens a call.
*Control.* In float32 a row of a longer call has other last bits, and so have logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...verify.bits import Refuted, assert_same_bits
from ...verify.cases import Case
from ...verify.theorem import CAUSALITY, NO_BYPASS, ROW_LOCALITY, Theorem, refuted_in_float32
from ..speculation import Draft, Figures, Speculator, no_draft

NEW = 6  # tokens
LONGEST = 4  # of a draft


def check(case: Case) -> None:
    """Speculation beside one token at a time, and beside generation."""
    prompt = case.ids[: max(1, len(case.ids) // 2)]
    count = min(NEW, case.config.max_position_embeddings - len(prompt))
    if count < 1:
        return  # the text fills the context
    expected = [*case.model.generate(prompt, count, stop=())]
    alone = run(case, prompt, no_draft, count)
    drafted = run(case, prompt, Mixed(case, prompt, expected), count)
    for what, found in (("one by one", alone), ("with drafts", drafted)):
        if found.tokens != expected:
            raise Refuted(f"{what}: {found.tokens}, not {expected}")
        assert_same_bits(found.logits, alone.logits, f"{what}: logits")
        for name, array in alone.cache.items():
            assert_same_bits(found.cache[name], array, f"{what}: {name} of the cache")
    if drafted.calls > alone.calls:
        raise Refuted(f"{drafted.calls} calls, {alone.calls} one by one")
    right = run(case, prompt, lambda said: expected[len(said) - len(prompt) :][:LONGEST], count)
    fewest = math.ceil((count - 1) / (LONGEST + 1))
    if (right.tokens, right.calls) != (expected, fewest):
        raise Refuted(f"right drafts: {right.tokens} in {right.calls} calls, expected {fewest}")


class Mixed:
    """Drafts of all kinds, drawn anew each round; `expected` is what will be said."""

    def __init__(self, case: Case, prompt: Sequence[int], expected: Sequence[int]) -> None:
        self.rng = case.rng
        self.vocabulary = case.config.vocab_size
        self.prompt = len(prompt)
        self.expected = expected

    def __call__(self, said: Sequence[int]) -> list[int]:
        length = int(self.rng.integers(LONGEST + 1))
        right = list(self.expected[len(said) - self.prompt :][:length])
        kind = self.rng.choice(["right", "one wrong", "random"])
        if kind == "random":
            return [int(token) for token in self.rng.integers(self.vocabulary, size=length)]
        if kind == "one wrong" and right:
            place = int(self.rng.integers(len(right)))
            right[place] = (right[place] + 1) % self.vocabulary
        return right


class Found:
    """What a speculation did."""

    def __init__(self, speculator: Speculator, tokens: list[int]) -> None:
        self.tokens = tokens
        self.logits = np.stack(speculator.figures.logits[: len(tokens)])
        self.cache = speculator.cache.state()[0]
        self.calls = speculator.figures.calls


def run(case: Case, prompt: Sequence[int], draft: Draft, count: int) -> Found:
    """Continue a prompt with drafts."""
    figures = Figures(keep=True)
    speculator = Speculator(
        case.model.weights, case.model.new_cache("full"), draft, figures=figures
    )
    return Found(speculator, list(speculator.tokens(prompt, count)))


THEOREM = Theorem(
    id="A3",
    name="speculation",
    text=__doc__,
    formula="speculate(any drafts) = one by one",
    remark="A call of several tokens has the rows of calls of one (T3); the rest is gone (T8).",
    hypotheses=(NO_BYPASS, CAUSALITY, ROW_LOCALITY),
    check=check,
    control=refuted_in_float32(check),
    dropped=ROW_LOCALITY,
    abstract="Speculation.speculation",
    concrete=("Concrete.concrete_speculation",),
    scope="greedy",
    unlabelled="two runs are compared",
)

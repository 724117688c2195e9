"""Quasar: the model verifies its own drafts in few bits.

Huang and Wen 2026, arXiv 2603.01399. *Rule.* Drafts are verified by the same model with its weights
rounded, which reads half the memory.

*Departures.* Weights are rounded row by row to `BITS`, norms not at all; drafts are those of the
full model. In the authors' scripts weights and activations have eight bits, the matrix of the
logits is not rounded, and drafts are looked up in the text so far.

*Its authors claim* 1.28 times the speed at an acceptance that is comparable to full precision.
*Here* it is the negative twin of Lookahead: what comes out is, bit for bit, what the rounded model
says, and that is not what the full one says.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ...build import build, random_tensors
from ...model import Model
from ..entry import Comparison, Entry, Exactness, Kind, other, same, true
from ..ground import small_model
from ..quantising import rounded
from ..speculation import no_draft
from .lookahead import run

BITS = 3


@functools.cache
def rounded_model(bits: int = BITS) -> Model:
    """The small model with every matrix rounded, row by row."""
    model = small_model()
    tensors = {
        name: rounded(tensor, bits)[0].astype(np.float32) if tensor.ndim > 1 else tensor
        for name, tensor in random_tensors(model.config, 1).items()
    }
    return Model(build(model.config, tensors, "exact"))


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    full, logits, _, _ = run(small_model(), no_draft)
    alone, rows, _, _ = run(rounded_model(), no_draft)
    tokens, verified, _, figures = run(rounded_model(), lambda said: full[len(said) - 6 :][:3])
    return [
        same("drafts verified in few bits = the rounded model alone", verified, rows),
        true("the same tokens", tokens == alone, f"{tokens}"),
        true("not the full model's", tokens != full, f"{full}", control=True),
        other("nor its logits", verified[:1], logits[:1]),
        true("no more calls than one by one", figures.calls <= len(tokens), f"{figures.calls}"),
    ]


ENTRY = Entry(
    name="quasar",
    title="Quasar",
    arxiv="2603.01399",
    kind=Kind.SPECULATING,
    state="the rounded model's cache",
    verdict=Exactness.LOSSY,
    reason="Lossless beside the rounded verifier, not beside the full model: the verifier decides.",
    cure="verify with the model that is meant",
    read="abstract, and the authors' code: its scripts",
    theorems=("A3", "T6", "T8"),
    demonstrate=demonstrate,
)

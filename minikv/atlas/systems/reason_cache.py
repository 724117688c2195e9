"""ReasonCACHE: demonstrations distilled into a fixed prefix of keys and values.

arXiv 2602.02366. *Rule.* Keys and values that no token made stand before the text, at every layer.

*Departures.* They are drawn at random, where the paper trains them; their place is position 0, and
the text keeps its positions.

*Its authors claim*, and prove, that this says more than a low-rank change of the weights can.
*Here:* the prefix is the projection of no stream, so that streams alone do not give the logits
back: the state is the streams and the prefix, and with the prefix kept like weights the replay has
the bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import decoded, full_logits, small_model, text
from ..injecting import Prefixed, replayed


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    logits, alone = replayed(model, text(), Prefixed(2), lambda: None)
    _, cured = replayed(model, text(), Prefixed(2), lambda: Prefixed(2))
    return [
        same("an empty prefix = the full cache", decoded(Prefixed(0)), full_logits()),
        other("a prefix of two rows, replayed from the stream alone", alone, logits),
        same("replayed with the prefix", cured, logits),
    ]


ENTRY = Entry(
    name="reason_cache",
    title="ReasonCACHE",
    arxiv="2602.02366",
    kind=Kind.STATE,
    state="the streams and the prefix",
    verdict=Exactness.REFUTES,
    reason="Injected keys and values are the projection of no stream; an empty prefix is the full "
    "cache.",
    cure="keep the prefix beside the checkpoints, like weights",
    read="abstract, and the authors' page: its mechanism",
    theorems=("T5",),
    counterexamples=("injected_prefix",),
    demonstrate=demonstrate,
)

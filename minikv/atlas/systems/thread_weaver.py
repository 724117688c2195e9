"""ThreadWeaver: a text branches into threads that share what came before, and joins again.

arXiv 2512.07843. *Rule.* Threads are branches of a tree whose trunk is shared; they run on any
engine that decodes, with ordinary positions and caches, one request a thread. A join is the text of
trunk and threads, one after the other, and the next request.

*Departures.* Two branches, given; nothing is trained. The mask of the tree is for training there.

*Its authors claim* the accuracy of one thread in less time. *Here:* the trunk's keys and values are
the same bits in every branch, whoever writes behind a fork does not touch the other (copy on
write), and one call with a mask of the tree has the logits of the branches apart. Behind a join the
first thread's rows are still those, and the second one's are not, since they follow the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Array, NewKeys, NewValues, Positions, Stream, TokenIds, to_numpy
from ...layers import Layer
from ...memory import Attended
from ...verify.memories import Wrapped
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import new_full, small_model, text

TRUNK = 6
BRANCH = 4


class Tree(Wrapped):
    """A call that holds a trunk and two branches, each of which counts on from the trunk."""

    def __init__(self) -> None:
        super().__init__(new_full())
        branch = np.arange(TRUNK, TRUNK + BRANCH)
        self.places = np.concatenate([np.arange(TRUNK), branch, branch])

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        return ids, self.places

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        _, keys, values = super().update(layer, positions, residual, k, v)
        return self.places, keys, values


def tree_mask(name: str, value: Array) -> Array:
    """A hook by which no branch sees the other."""
    if not name.endswith("hook_attn_scores"):
        return value
    scores = to_numpy(value).copy()
    first = slice(TRUNK, TRUNK + BRANCH)
    second = slice(TRUNK + BRANCH, None)
    scores[:, second, first] = -np.inf
    scores[:, first, second] = -np.inf
    return scores


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    trunk = text()[:TRUNK]
    one, two = text()[TRUNK : TRUNK + BRANCH], text(1)[TRUNK : TRUNK + BRANCH]
    cache = model.new_cache("full")
    model.forward([trunk], [cache], "none")
    forks = [cache.fork(), cache.fork()]
    rows = to_numpy(model.forward([one, two], forks, "all"))
    apart = np.concatenate([to_numpy(model.logits((*trunk, *ids)))[TRUNK:] for ids in (one, two)])
    kept = [fork.state()[0]["k.1"][:TRUNK] for fork in (*forks, cache)]
    everything = [(*trunk, *one, *two)]
    tree = to_numpy(model.forward(everything, [Tree()], "all", tree_mask))[TRUNK:]
    unmasked = to_numpy(model.forward(everything, [Tree()], "all"))[TRUNK:]
    joined = to_numpy(model.logits(everything[0]))[TRUNK:]
    return [
        same("the trunk in both branches", kept[0], kept[1]),
        same("and in the cache that was forked", kept[2], kept[0]),
        same("branches from one trunk = texts apart", rows, apart),
        same("one call with the mask of the tree", tree, apart),
        other("without the mask", unmasked, apart),
        same("behind the join: the first thread", joined[:BRANCH], apart[:BRANCH]),
        other("behind the join: the second thread", joined[BRANCH:], apart[BRANCH:]),
    ]


ENTRY = Entry(
    name="thread_weaver",
    title="ThreadWeaver",
    arxiv="2512.07843",
    kind=Kind.REUSING,
    state="the trunk's rows once, and those of each branch",
    verdict=Exactness.EXACT,
    reason="Branches share the trunk's bits, and a mask of the tree is the branches apart.",
    read="abstract, and the authors' code: its README",
    theorems=("T6", "T8", "T10"),
    demonstrate=demonstrate,
)

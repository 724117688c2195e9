r"""However a model is split over ranks, and however these add, every rank has the same logits.

Let each of some ranks hold some query heads (with the K and V that they read), some of the MLP's
width, and some rows of the embedding and of the output matrix, cut wherever one likes. Attention's
output and the MLP's are then sums whose terms lie on all ranks. If ranks agree on the grid of a row
by two reductions (the largest number; the exact sums from which `Exact.total` is made), and add up
their parts of the product by a third, then in any order and tree of each reduction, and for any
number of ranks, every rank has the logits of one process. *Proof.* A maximum has no order. The
sums of `total`, and the products of rows on the common grid, are sums of integers of at most
$2^{53}$ steps, and a tree of ranks, with a tree of additions in each, is one tree over all terms:
T7. All else is done by one rank alone: heads do not meet in attention, a row of a matrix makes a
number of its own, and a row of the embedding is passed on as bits.

Needed is that no rank decides by itself. A grid from its own part of a row is another grid; an
estimate that only one rank doubts sends that rank into a reduction to which the others never come.
*Control.* In float32 the same split, on the same calls, changes logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from ...arrays import to_numpy
from ...build import random_tensors
from ...config import ModelConfig
from ...decoder import embed
from ...model import Model
from ...parallel import Comm, Share, load_rank, run_threads, shares_of, split_model
from ..bits import assert_same_bits
from ..cases import Case
from ..theorem import EXACT_SUMS, Theorem, Weaker, refuted_in_float32

MOST_RANKS = 4


@dataclass(frozen=True)
class Seen:
    """What a rank, or one process alone, makes of a case."""

    embedded: np.ndarray  # (T, D)
    logits: list[np.ndarray]  # of each call


def check(case: Case) -> None:
    """Ranks of a random split, which reduce in random orders, against one process.

    Both texts go through the decoder in one ragged batch, the first through a full cache, the other
    through KV-Direct, in the same calls.
    """
    size = ranks_of(case.config, case.rng)
    shares = random_shares(case.config, size, case.rng)
    expected = followed(case, case.model)
    ranks = run_threads(len(shares), partial(on_rank, case, shares), case.seed)
    for rank, seen in enumerate(ranks):
        who = f"rank {rank} of {len(shares)}"
        assert_same_bits(seen.embedded, expected.embedded, f"{who}: the embedding")
        for call, (got, wanted) in enumerate(zip(seen.logits, expected.logits, strict=True)):
            assert_same_bits(got, wanted, f"{who}: logits of call {call}")


def ranks_of(config: ModelConfig, rng: np.random.Generator) -> int:
    """How many ranks: two to four, fewer for a model that does not have so many heads."""
    lengths = (config.num_attention_heads, config.intermediate_size, config.vocab_size)
    return min(int(rng.integers(2, MOST_RANKS + 1)), *lengths)


def random_shares(config: ModelConfig, size: int, rng: np.random.Generator) -> list[Share]:
    """A model cut anywhere: also between query heads that read one key, and unevenly."""
    heads = cut_anywhere(config.num_attention_heads, size, rng)
    features = cut_anywhere(config.intermediate_size, size, rng)
    words = cut_anywhere(config.vocab_size, size, rng)
    return shares_of(config, heads, features, words)


def cut_anywhere(length: int, size: int, rng: np.random.Generator) -> list[range]:
    """`length` things in `size` pieces, none empty."""
    cuts = np.sort(rng.permutation(length - 1)[: size - 1]) + 1
    edges = [0, *cuts.tolist(), length]
    return [range(start, stop) for start, stop in pairwise(edges)]


def on_rank(case: Case, shares: list[Share], comm: Comm) -> Seen:
    """One rank's part of the check."""
    if isinstance(case.source, str):
        model: Model = load_rank(case.source, comm, case.arithmetic, case.backend, shares)
    else:
        tensors = random_tensors(case.source, case.seed, case.scale)
        model = split_model(case.source, tensors, comm, case.arithmetic, case.backend, shares)
    return followed(case, model)


def followed(case: Case, model: Model) -> Seen:
    """The calls of a case, by one process or by a rank."""
    embedded = to_numpy(embed(model.weights, np.array(case.ids)))
    caches = [model.new_cache("full"), model.new_cache("residual", budget=1)]
    logits = [to_numpy(model.forward(new, caches, "all")) for new in calls(case)]
    return Seen(embedded, logits)


def calls(case: Case) -> Iterator[list[tuple[int, ...]]]:
    """New tokens of both texts, call by call; the other text comes in the calls' reverse order."""
    start = 0
    other_start = 0
    for count, other_count in zip(case.chunks, reversed(case.chunks), strict=True):
        new = case.ids[start : start + count]
        other_new = case.other[other_start : other_start + other_count]
        yield [new, other_new]
        start += count
        other_start += other_count


THEOREM = Theorem(
    id="T12",
    name="split",
    text=__doc__,
    formula="logits(<i>rank</i><sub>1</sub> ∪ … ∪ <i>rank</i><sub>n</sub>, any tree) = logits",
    remark="A tree of ranks, with a tree of additions in each, is one tree over all terms (T7).",
    hypotheses=(EXACT_SUMS,),
    check=check,
    control=refuted_in_float32(check),
    dropped=EXACT_SUMS,
    abstract="Exactness.split_exact",
    concrete=("Ranks.split_logits", "Ranks.split_logits_cached"),
    scope="up to four ranks, threads of one process",
    unlabelled="about sums whose terms lie on several machines",
    weaker=(
        Weaker(
            "rank-0-alone",
            old="enumerate(ranks):",
            new="enumerate(ranks[:1]):",
            noticed="split-words-in-another-order-on-rank-1",
        ),
        Weaker(
            "two-ranks-alone",
            old="size = ranks_of(case.config, case.rng)",
            new="size = min(2, ranks_of(case.config, case.rng))",
            noticed="split-third-rank-forgotten",
        ),
        Weaker(
            "embedding-unseen",
            old="assert_same_bits(seen.embedded, expected.embedded,",
            new="assert_same_bits(expected.embedded, expected.embedded,",
            noticed="split-zero-loses-its-sign",
        ),
        Weaker(
            "last-rows-alone",
            old="assert_same_bits(got, wanted,",
            new="assert_same_bits(got[-1:], wanted[-1:],",
            noticed="split-grid-of-the-last-row",
            seed=2,
        ),
    ),
)

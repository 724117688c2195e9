"""Hogwild! Inference: several workers write at once and see each other's words as they come.

Rodionov et al. 2025, arXiv 2504.06261. *Rule.* Workers share one cache of attention. Each sees the
prompt, then the others' text, then its own, with positions counted in that order; rotations let
keys move there without being made again.

*Departures.* Workers take turns, one token each, as a schedule says, where the code runs all of
them in one call. It turns keys by the distance that they move; here they are made again from their
streams at the new position, which is exact where turning them is not.

*Its authors claim* that reasoning models coordinate without training. *Here:* one worker is
sequential decoding, bit for bit. With two, a stream depends on the schedule: the state is the
streams of all, and given these the bits are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NewKeys, NewValues, Pattern, Positions, Stream, TokenIds, to_numpy
from ...decoder import Weights
from ...layers import Layer
from ...memory import Attended
from ...projection import kv_from_residual
from ..entry import Comparison, Entry, Exactness, Kind, other, same
from ..ground import full_logits, small_model, text

SHARED = 4  # tokens of the prompt


class Board:
    """The streams of all tokens of all workers, by layer; block 0 is the prompt's."""

    def __init__(self, weights: Weights, workers: int) -> None:
        self.weights = weights
        self.blocks: list[list[list[np.ndarray]]] = [
            [[] for _ in weights.layers] for _ in range(workers + 1)
        ]

    def order(self, worker: int) -> list[int]:
        """The blocks as a worker sees them: the prompt, the others, its own."""
        if worker == 0:
            return [0]
        others = [block for block in range(1, len(self.blocks)) if block != worker]
        return [0, *others, worker]


class Seat:
    """One worker's `Memory` of what is on the board."""

    watches = False

    def __init__(self, board: Board, worker: int) -> None:
        self.board = board
        self.worker = worker
        self.weights = board.weights

    def begin(self, ids: TokenIds) -> tuple[TokenIds, Positions]:
        """Its tokens come behind all that it sees."""
        seen = sum(len(self.board.blocks[block][0]) for block in self._order())
        return ids, np.arange(seen, seen + len(ids))

    def update(
        self, layer: Layer, positions: Positions, residual: Stream, k: NewKeys, v: NewValues
    ) -> Attended:
        """Put the new streams on the board, and make all keys at their places."""
        self.board.blocks[self.worker][layer.index].extend(to_numpy(residual))
        rows = [row for block in self._order() for row in self.board.blocks[block][layer.index]]
        places = np.arange(len(rows))
        keys, values = kv_from_residual(np.stack(rows), places, layer)
        return places, keys, values

    def observe(self, layer: Layer, positions: Positions, pattern: Pattern) -> None:
        """Nobody asks for it."""

    def evict(self, layer: Layer) -> None:
        """Nothing goes."""

    def advance(self, tokens: int) -> None:
        """The board counts."""

    def _order(self) -> list[int]:
        return self.board.order(self.worker)


def worked(schedule: Sequence[int], words: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The logits of each worker's tokens, who say these words in the order of a schedule."""
    model = small_model()
    board = Board(model.weights, len(words))
    model.forward([text()[:SHARED]], [Seat(board, 0)], "none")
    said: list[list[np.ndarray]] = [[] for _ in words]
    for worker in schedule:
        word = words[worker][len(said[worker])]
        seat = Seat(board, worker + 1)
        said[worker].append(to_numpy(model.forward([[word]], [seat], "all"))[0])
    return [np.stack(rows) for rows in said]


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    words = text()[SHARED : SHARED + 4], text(1)[:4]
    alone = worked([0] * 4, words[:1])[0]
    turns = worked([0, 1] * 4, words)
    again = worked([0, 1] * 4, words)
    blocks = worked([0, 0, 0, 0, 1, 1, 1, 1], words)
    joined = to_numpy(small_model().logits((*text()[:SHARED], *words[0], *words[1])))
    return [
        same("one worker = sequential decoding", alone, full_logits()[SHARED : SHARED + 4]),
        same("two, the same schedule twice", turns[1], again[1]),
        same("one worker after the other = one text", blocks[1], joined[-4:]),
        other("two, another schedule", blocks[1], turns[1]),
        other("the first worker beside itself alone", turns[0], alone),
    ]


ENTRY = Entry(
    name="hogwild",
    title="Hogwild! Inference",
    arxiv="2504.06261",
    kind=Kind.SPLITTING,
    state="the streams of all workers, and the schedule that made them",
    verdict=Exactness.LOSSY,
    reason="One worker is sequential decoding, bit for bit; with two, streams depend on the "
    "schedule.",
    cure="keep all workers' streams: T1 makes keys at any place",
    read="abstract, and the authors' code: its shared cache",
    theorems=("T1", "T2"),
    demonstrate=demonstrate,
)

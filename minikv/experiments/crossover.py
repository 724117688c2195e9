"""Making N rows of K and V by projection against copying them (figure 7 of the paper).

With a roofline (Williams, Waterman and Patterson 2009, Communications of the ACM 52(4)) that
predicts both from bytes, operations, and what the machine does in a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from ..arrays import Array
from ..config import ModelConfig
from ..decoder import forward
from ..layers import Layer
from ..model import Model, random_model
from ..progress import Progress, silent
from ..projection import kv_from_residual
from .timing import Clock, samples, seconds

COPIED = 64 * 2**20  # bytes of the copy that measures bandwidth: more than processors cache
PRODUCT = (512, 1024, 1024)  # rows, inputs and outputs of the product that measures the rate
Row = dict[str, Any]


# What there is to do


@dataclass(frozen=True)
class Work:
    """Numbers that a projection, a copy, and a replay of one layer read, write and add.

    Parameters
    ----------
    hidden : int
        D, numbers in a residual.
    kv : int
        2 G d, numbers in a token's K and V of one layer.
    block : int
        Weights in the matrices of one block.
    """

    hidden: int
    kv: int
    block: int

    @classmethod
    def of(cls, config: ModelConfig) -> Work:
        """At the shape of a model."""
        hidden = config.hidden_size
        kv = 2 * config.num_key_value_heads * config.head_dim
        attention = hidden * (2 * config.attention_width + kv)
        return cls(hidden, kv, attention + 3 * hidden * config.intermediate_size)

    def flops(self, rows: int) -> int:
        """Of a projection: a product and a sum for each weight and row."""
        return 2 * rows * self.hidden * self.kv

    def replay_flops(self, rows: int) -> int:
        """Of a whole block, attention's own products left out."""
        return 2 * rows * self.block

    def copied(self, rows: int) -> int:
        """Numbers that a copy moves: it reads and writes each."""
        return 2 * rows * self.kv

    def projected(self, rows: int) -> int:
        """Numbers that a projection moves: it reads residuals and weights, and writes K and V."""
        return rows * self.hidden + self.hidden * self.kv + rows * self.kv

    @property
    def least_ratio(self) -> float:
        """Time to project / time to copy where arithmetic and weights cost nothing.

        The least of two ways to count, with what both of them write and without. No machine is
        below it whose residuals come from the same memory as K and V.

        Examples
        --------
        >>> Work(hidden=1024, kv=2048, block=0).least_ratio
        0.5
        """
        return min(self.hidden / self.kv, (self.hidden + self.kv) / (2 * self.kv))


@dataclass(frozen=True)
class Roofline:
    """What a machine does in a second: it is as slow as the slower of memory and arithmetic.

    Parameters
    ----------
    traffic : float
        Bytes that a large copy reads and writes, in a second.
    rate : float
        Floating-point operations of a large product, in a second.
    itemsize : int
        Bytes of a number.
    """

    traffic: float
    rate: float
    itemsize: int

    def copy_seconds(self, work: Work, rows: int) -> float:
        """Of one layer's rows."""
        return self.itemsize * work.copied(rows) / self.traffic

    def project_seconds(self, work: Work, rows: int) -> float:
        """Of one layer's rows."""
        moving = self.itemsize * work.projected(rows) / self.traffic
        return max(moving, work.flops(rows) / self.rate)

    def ratio(self, work: Work, rows: int) -> float:
        """Time to project / time to copy."""
        return self.project_seconds(work, rows) / self.copy_seconds(work, rows)

    def crossover(self, work: Work, rows: int) -> float:
        """Bytes a second at which K and V are read as fast as they are made.

        Below it, making them is faster; the residuals are taken to be in memory.
        """
        return self.itemsize * rows * work.kv / self.project_seconds(work, rows)


def rate_needed(work: Work, numbers: float, ratio: float = 1.0, replay: bool = False) -> float:
    """Operations a second at which making K and V takes `ratio` times the time to read them.

    Parameters
    ----------
    work : Work
    numbers : float
        Of K and V that are read in a second: bandwidth / bytes of a number.
    ratio : float
    replay : bool
        Whether they are made by running whole blocks again.

    Examples
    --------
    >>> rate_needed(Work(hidden=576, kv=384, block=0), numbers=200e9, ratio=0.2)
    1152000000000000.0
    """
    flops = work.replay_flops(1) if replay else work.flops(1)
    return flops * numbers / work.kv / ratio


# Measured


def measured(repeats: int = 9, clock: Clock = time.process_time) -> Roofline:
    """This machine's roofline, in float32."""
    source = np.ones(COPIED // 4, dtype=np.float32)
    target = np.zeros_like(source)
    rows, inputs, outputs = PRODUCT
    x = np.ones((rows, inputs), dtype=np.float32)
    weight = np.ones((outputs, inputs), dtype=np.float32)
    calls: dict[str, Callable[[], object]] = {
        "copy": partial(np.copyto, target, source),
        "product": lambda: x @ weight.T,
    }
    taken = seconds(calls, repeats, clock=clock)
    return Roofline(
        traffic=2 * COPIED / taken["copy"],
        rate=2 * rows * inputs * outputs / taken["product"],
        itemsize=4,
    )


def cut(config: ModelConfig, layers: int, blocks: bool = False) -> ModelConfig:
    """The same shape where it matters, and small elsewhere, so that random weights fit.

    What makes K and V keeps its size; the vocabulary, which no block reads, does not. Neither do
    query heads and MLP, unless whole `blocks` are to be run.
    """
    small: dict[str, Any] = {
        "vocab_size": 8,
        "bos_token_id": None,
        "eos_token_id": (),
        "tie_word_embeddings": True,
        "num_hidden_layers": layers,
        "layer_types": config.layer_types[-layers:],
    }
    if not blocks:
        small["num_attention_heads"] = config.num_key_value_heads
        small["intermediate_size"] = 2
    return replace(config, **small)


class Rows:
    """Rows of the stream, of K and of V of one layer, with room for a copy."""

    def __init__(self, layer: Layer, count: int) -> None:
        shape = (count, layer.config.hidden_size)
        rng = np.random.default_rng(layer.index)
        self.layer = layer
        self.positions = np.arange(count)
        self.residuals = rng.standard_normal(shape, dtype=np.float32)
        self.cached: tuple[Array, ...] = self.projected(count)
        self.room = tuple(np.zeros_like(array) for array in self.cached)

    def projected(self, count: int) -> tuple[Array, Array]:
        """The first rows, made from the stream."""
        return kv_from_residual(self.residuals[:count], self.positions[:count], self.layer)

    def copy(self, count: int) -> None:
        """The first rows of K and of V, each copied at once."""
        for room, cached in zip(self.room, self.cached, strict=True):
            np.copyto(room[:count], cached[:count])

    def copy_one_by_one(self, count: int) -> None:
        """The same, a call for each row."""
        for room, cached in zip(self.room, self.cached, strict=True):
            for row in range(count):
                room[row] = cached[row]


def compare(
    model: Model,
    counts: Sequence[int],
    repeats: int = 5,
    clock: Clock = time.process_time,
    progress: Progress = silent,
) -> list[Row]:
    """Time projection and copy of `counts` rows, through all layers of a model.

    Each layer has weights, residuals and K/V of its own, so that what does not fit into the
    processor's cache is read from memory.

    Returns
    -------
    list of dict
        For one layer, the mean of all: ``copy_seconds``, ``one_by_one_seconds`` (a copy that takes
        a call for each row), ``project_seconds``: medians. ``ratio``: of the medians, projecting /
        copying; ``lowest``, ``highest``: of the turns' own ratios.
    """
    rows = [Rows(layer, max(counts)) for layer in model.layers]
    found = []
    for number, count in enumerate(counts):
        calls: dict[str, Callable[[], object]] = {
            "copy": partial(_through, rows, Rows.copy, count),
            "one_by_one": partial(_through, rows, Rows.copy_one_by_one, count),
            "project": partial(_through, rows, Rows.projected, count),
        }
        calls["copy"]()  # warm up
        taken = samples(calls, repeats, clock=clock)
        pairs = zip(taken["project"], taken["copy"], strict=True)
        ratios = sorted(project / copy for project, copy in pairs)
        each = {name: median(times) / len(rows) for name, times in taken.items()}
        found.append(
            {
                "rows": count,
                **{f"{name}_seconds": value for name, value in each.items()},
                "ratio": each["project"] / each["copy"],
                "lowest": ratios[0],
                "highest": ratios[-1],
            }
        )
        progress("crossover", number + 1, len(counts))
    return found


def _through(layers: Sequence[Rows], operation: Callable[[Rows, int], object], count: int) -> None:
    """One operation on as many rows, layer by layer."""
    for layer in layers:
        operation(layer, count)


def replay_seconds(
    model: Model, count: int, repeats: int = 3, clock: Clock = time.process_time
) -> float:
    """Time to run `count` tokens through a model's blocks: the mean of its layers, median of runs.

    It is what one vector a token, the embedding, needs to have K and V of all layers back (T5).
    """
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, count)
    run = partial(forward, model.weights, [ids], logits="none")
    run()  # warm up
    return seconds({"replay": run}, repeats, clock=clock)["replay"] / len(model.layers)


def random_rows(config: ModelConfig, layers: int | None = None) -> Model:
    """Random weights at the true shape of what makes K and V, for `compare`."""
    return random_model(cut(config, layers or config.num_hidden_layers))


def random_block(config: ModelConfig) -> Model:
    """One block, the last, of random weights at its true shape, for `replay_seconds`."""
    return random_model(cut(config, 1, blocks=True))


def crossing(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The fewest rows from which on projecting is faster than copying, at all counts; or None."""
    found = None
    for row in sorted(rows, key=lambda row: -row["rows"]):
        if row["ratio"] >= 1:
            break
        found = row["rows"]
    return found

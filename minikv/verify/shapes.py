"""Theorems at the true shape of models that need not be there: ``minikv prove --shape``.

The shapes are ``config.json`` files in ``minikv/data/shapes/``, each with its `_source`. The
dataflow certificate takes a shape whole. T1 is checked block by block, with random weights, one
block in memory at a time: its queries, keys, values and output at their true width. Its MLP, which
neither reads nor makes a K or V, gets a single feature, and there is no embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..build import build
from ..config import ModelConfig
from ..decoder import Span, block
from ..layers import Layer
from ..projection import kv_from_residual
from ..shapes import SHAPES as SHAPES
from ..shapes import shape as shape
from ..weights import expected_shapes
from .labels import certify
from .report import Result, prove, value_residual
from .theorems import Refuted, Theorem, refutes_float32, same_bits

TOKENS = 48  # of the random stream
NOTE = """T1: bit for bit, random weights at true width, one block in memory at a time;
no embedding, and one feature in the MLP, which neither reads nor makes a K or V."""


@dataclass(frozen=True)
class Block:
    """A block of a shape, and the seed of its random weights and stream."""

    config: ModelConfig
    index: int
    seed: int = 0
    arithmetic: str = "exact"

    @property
    def layer(self) -> Layer:
        """Its weights alone, of variance 1 / K; norms and biases are from -1 to 1."""
        kinds = self.config.layer_types[self.index : self.index + 1]
        alone = replace(
            self.config,
            num_hidden_layers=1,
            layer_types=kinds,
            intermediate_size=1,
            vocab_size=1,
            bos_token_id=None,
            eos_token_id=(),
        )
        rng, tensors = np.random.default_rng([self.seed, self.index]), {}
        for name, dims in expected_shapes(alone).items():
            tensors[name] = 2 * rng.random(dims, dtype=np.float32) - 1
            tensors[name] *= np.float32((3 / dims[-1]) ** 0.5 if len(dims) > 1 else 1)
        return build(alone, tensors, self.arithmetic).layers[0]


def projection(case: Block) -> None:
    """T1 for one block: any rows of the stream project to the K and V that the block makes.

    The stream is random, its positions up to two windows apart. Rows are taken all in one call,
    permuted, in three parts, and alone.
    """
    layer, config = case.layer, case.config
    rng = np.random.default_rng([case.seed, case.index, TOKENS])
    span = min(config.max_position_embeddings, 2 * (config.window(case.index) or 1024))
    at = np.sort(rng.permutation(span)[:TOKENS])
    stream = rng.standard_normal((len(at), config.hidden_size), dtype=np.float32)
    made: dict[str, Any] = {}
    block(layer, stream, at, [Span(slice(0, len(at)), at)], made.setdefault)
    shuffled = rng.permutation(len(at))
    for rows in (np.arange(len(at)), shuffled, *np.array_split(shuffled, 3), shuffled[:1]):
        for name, got in zip(
            ("rot_k", "v"), kv_from_residual(stream[rows], at[rows], layer), strict=True
        ):
            expected = made[f"blocks.0.attn.hook_{name}"]
            same_bits(got, expected[rows], f"{name} of block {case.index}, {len(rows)} rows")


def _certified(config: ModelConfig) -> None:
    for failure in certify(config).failures:
        raise Refuted(f"window {config.sliding_window}: {failure}")


def _smuggled(config: ModelConfig) -> bool:
    return bool(certify(config, (1,), lambda: partial(value_residual, {})).failures)


CLAIMS = {
    "D": Theorem(
        "D",
        "dataflow",
        "no label gets past the stream: the whole model, all inputs",
        _certified,
        _smuggled,
        "a stream that carries all state",
    ),
    "T1": Theorem(
        "T1",
        "projection",
        "K and V are projections of the stream: block by block",
        projection,
        refutes_float32(projection),
        "exact sums",
    ),
}


def prove_shape(
    config: ModelConfig, seed: int = 0, progress: Callable[[str, float], None] = lambda *_: None
) -> list[Result]:
    """The dataflow certificate and T1 at a shape, each with its control.

    Where there are sliding layers, the certificate is also made with a window of two tokens, since
    the true one is longer than its texts.
    """

    def watched(label: str, cases: Sequence[Any]) -> Iterator[Any]:
        for number, case in enumerate(cases):
            progress(label, number / len(cases))
            yield case

    short = [replace(config, sliding_window=2)] if config.slides else []
    blocks = [Block(config, index, seed) for index in range(config.num_hidden_layers)]
    todo: dict[str, Sequence[Any]] = {"D": [config, *short], "T1": blocks}
    results = [prove(CLAIMS[id], watched(id, cases), cases) for id, cases in todo.items()]
    return [replace(result, failure=result.failure.split("\n")[0]) for result in results]

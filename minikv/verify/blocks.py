"""Theorems at the true shape of models that need not be there: ``minikv prove --shape``.

The dataflow certificate takes a shape whole. T1 is checked block by block, with random weights, one
block in memory at a time: its queries, keys, values and output at their true width. Its MLP, which
neither reads nor makes a K or V, gets a single feature, and there is no embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..arrays import Array
from ..build import build
from ..config import ModelConfig
from ..decoder import Span, block
from ..layers import Layer
from ..progress import Progress, silent
from ..weights import expected_shapes
from .certificate import CERTIFICATE
from .run import Result, prove
from .theorem import Theorem, refuted_in_float32
from .theorems import THEOREMS
from .theorems.t01_projection import check_rows

TOKENS = 48  # of the random stream
NOTE = """T1: bit for bit, random weights at true width, one block in memory at a time; \
no embedding, and one feature in the MLP, which neither reads nor makes a K or V."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shape:
    """What the dataflow certificate is checked on: a shape, whole."""

    config: ModelConfig


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
        rng = np.random.default_rng([self.seed, self.index])
        tensors = {}
        for name, dims in expected_shapes(alone).items():
            scale = 1.0
            if len(dims) > 1:
                scale = (3 / dims[-1]) ** 0.5
            tensors[name] = (2 * rng.random(dims, dtype=np.float32) - 1) * np.float32(scale)
        return build(alone, tensors, self.arithmetic).layers[0]


def check_block(case: Block) -> None:
    """T1 for one block: any rows of the stream project to the K and V that the block makes.

    The stream is random, its positions up to two windows apart. Rows are taken all in one call,
    permuted, in three parts, and alone.
    """
    layer = case.layer
    rng = np.random.default_rng([case.seed, case.index, TOKENS])
    furthest = 2 * (case.config.window(case.index) or 1024)
    span = min(case.config.max_position_embeddings, furthest)
    positions = np.sort(rng.permutation(span)[:TOKENS])
    tokens = len(positions)
    stream = rng.standard_normal((tokens, case.config.hidden_size), dtype=np.float32)
    found: dict[str, Array] = {}
    block(layer, stream, positions, [Span(slice(0, tokens), positions)], found.setdefault)
    made = (found["blocks.0.attn.hook_rot_k"], found["blocks.0.attn.hook_v"])
    shuffled = rng.permutation(tokens)
    choices = [np.arange(tokens), shuffled, *np.array_split(shuffled, 3), shuffled[:1]]
    check_rows(f"block {case.index}", layer, stream, positions, made, choices)


WHOLE = replace(CERTIFICATE, text="No label gets past the stream: the whole model, all inputs.")
_T1 = THEOREMS["T1"]
PROJECTION: Theorem[Block] = Theorem(
    id=_T1.id,
    name=_T1.name,
    text="K and V are projections of the stream: block by block.",
    formula=_T1.formula,
    remark=_T1.remark,
    hypotheses=_T1.hypotheses,
    check=check_block,
    control=refuted_in_float32(check_block),
    dropped=_T1.dropped,
)

STATEMENTS = {claim.id: claim.statement for claim in (WHOLE, PROJECTION)}


def prove_shape(config: ModelConfig, seed: int = 0, progress: Progress = silent) -> list[Result]:
    """The dataflow certificate and T1 at a shape, each with its control."""

    def watched(label: str, cases: Sequence[Item]) -> Iterator[Item]:
        for number, case in enumerate(cases):
            progress(label, number, len(cases))
            yield case

    shapes = [Shape(config)]
    blocks = [Block(config, index, seed) for index in range(config.num_hidden_layers)]
    results = [
        prove(WHOLE, watched(WHOLE.id, shapes), shapes),
        prove(PROJECTION, watched(PROJECTION.id, blocks), blocks),
    ]
    return [replace(result, failure=result.failure.split("\n")[0]) for result in results]

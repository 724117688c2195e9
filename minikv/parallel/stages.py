"""The other way to cut a model: by layers. Each rank has some, and hands the stream on.

Nothing is summed over ranks, so that this keeps the bits of any arithmetic, of float32 too. Ranks
work one after the other: it shares memory, not time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arithmetic import Arithmetic
from ..arrays import Logits, to_numpy
from ..backends import get_backend
from ..build import Preparation, Tensors, digest_of
from ..caches.residual import Residual
from ..config import ModelConfig
from ..decoder import Ids, Weights, block, embed, stack, unembed, wanted_rows
from ..errors import InputError
from ..layers import Layer
from ..memory import Memory
from ..rotary import Rotary
from .comm import Comm
from .share import pieces

WEIGHTS = (
    "input_layernorm",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "pre_mlp_layernorm",
    "gate_proj",
    "up_proj",
    "down_proj",
)
"""What every layer has, and one of another rank has not here."""


@dataclass(frozen=True)
class StagePreparation(Preparation):
    """`Preparation` of a rank's layers; the others have their places, and no weights."""

    mine: range

    def layer(self, index: int, rotary: Rotary) -> Layer:
        if index in self.mine:
            return super().layer(index, rotary)
        none = dict.fromkeys(WEIGHTS)
        return Layer(index, self.config, self.arithmetic, rotary, **none)


@dataclass(frozen=True)
class Stage:
    """A rank that has some layers, and the embedding and output matrix, which all have.

    Attributes
    ----------
    weights : Weights
        Caches are made for them; they hold the K and V of the rank's layers. KV-Direct is none of
        them, since it may run all layers again.
    mine : range
        The rank's layers.
    comm : Comm
    """

    weights: Weights
    mine: range
    comm: Comm

    def forward(
        self,
        sequences: Sequence[Ids],
        caches: Sequence[Memory | None] | None = None,
        logits: str = "last",
    ) -> Logits:
        """`minikv.decoder.forward`, by all ranks together; every one gets the logits.

        Raises
        ------
        InputError
            If a cache is KV-Direct's.
        """
        if any(isinstance(cache, Residual) for cache in caches or ()):
            raise InputError(
                "a stage has some layers, and cache 'residual' may run all again: choose another"
            )
        ids, spans = stack(self.weights, sequences, caches)
        positions = np.concatenate([span.positions for span in spans])
        x = embed(self.weights, ids)
        for rank in range(self.comm.size):
            if rank == self.comm.rank:
                for layer in self.weights.layers[self.mine.start : self.mine.stop]:
                    x = block(layer, x, positions, spans)
            x = self._handed_on(x, rank)
        x = wanted_rows(self.weights, x, spans, logits)
        out = unembed(self.weights, x)
        for span in spans:
            if span.cache is not None:
                span.cache.advance(span.new)
        return out

    def _handed_on(self, x: np.ndarray, rank: int) -> np.ndarray:
        """One rank's stream, on all."""
        given = to_numpy(x)
        if rank != self.comm.rank:
            given = given[:0]
        return self.weights.arithmetic.xp.asarray(self.comm.gather(given)[rank])


def make_stage(
    config: ModelConfig,
    tensors: Tensors,
    comm: Comm,
    arithmetic: str | Arithmetic = "exact",
    backend: str = "numpy",
) -> Stage:
    """A rank's layers of a model; tensors of other layers are not asked for.

    Raises
    ------
    InputError
        If there are more ranks than layers.
    """
    if comm.size > config.num_hidden_layers:
        raise InputError(
            f"{comm.size} stages for {config.num_hidden_layers} layers, expected at most as many"
        )
    mine = pieces(config.num_hidden_layers, comm.size)[comm.rank]
    chosen = get_backend(backend, arithmetic, config.max_position_embeddings)
    prepare = StagePreparation(config, tensors, chosen, mine)
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    weights = Weights(
        config,
        chosen,
        embed_tokens=prepare.vector("model.embed_tokens.weight"),
        layers=prepare.layers(),
        norm=prepare.norm("model.norm"),
        lm_head=prepare.matrix(head, tied=config.tie_word_embeddings),
        digest=digest_of(config, tensors),
    )
    return Stage(weights, mine, comm)

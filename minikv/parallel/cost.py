"""What ranks say to each other for a token, and a model of when more of them are faster.

A model, not a measurement: a token costs the time to read a rank's weights once, and for each call
the network's latency and the time for its bytes. Nothing overlaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import ModelConfig

SPLIT_SUMS = 2  # of a block: attention's output and the MLP's
CALLS_EACH = 3  # the row's largest number, its sum, the product
SCALARS = 32  # bytes of the first two, of a row: two float64 each


@dataclass(frozen=True)
class Said:
    """What one rank gives to the calls of one decoded token, and what all get back, in bytes."""

    calls: int
    sums: int  # to `Comm.max` and `Comm.sum`, and as many back
    gathered: int  # to `Comm.gather`, by all ranks together


def said_per_token(config: ModelConfig, size: int) -> Said:
    """The calls of one decoded token under ``exact``, with any cache but KV-Direct's.

    Parameters
    ----------
    config : ModelConfig
        Of the whole model.
    size : int
        Ranks.
    """
    products = SPLIT_SUMS * config.num_hidden_layers
    stream = config.hidden_size
    return Said(
        calls=CALLS_EACH * products + 3,  # and the ids, the embedding, the logits
        sums=products * (SCALARS + 8 * stream) + 4 * stream,
        gathered=8 * size + 4 * config.vocab_size,
    )


@dataclass(frozen=True)
class Network:
    """What joins ranks.

    Attributes
    ----------
    name : str
    latency : float
        Seconds from one rank to another.
    bandwidth : float
        Bytes a second, of one rank, in each direction.
    """

    name: str
    latency: float
    bandwidth: float


NETWORKS = (
    Network("1 Gbit/s Ethernet", 50e-6, 0.125e9),
    Network("10 Gbit/s Ethernet", 20e-6, 1.25e9),
    Network("200 Gbit/s InfiniBand", 2e-6, 25e9),
)
"""Round figures of the trade, not measured here."""


def seconds_per_token(
    config: ModelConfig, size: int, network: Network, memory: float, weight_bytes: float = 4.0
) -> float:
    """A decoded token's time, as the model has it.

    Reductions go up and down a tree of ranks: ``2 ceil(log2 size)`` steps of latency each, and each
    byte passes a rank twice.

    Parameters
    ----------
    config : ModelConfig
    size : int
    network : Network
    memory : float
        Bytes of weights that a rank reads in a second.
    weight_bytes : float
        Of one weight.
    """
    reading = config.num_parameters * weight_bytes / size / memory
    if size == 1:
        return reading
    said = said_per_token(config, size)
    steps = 2 * math.ceil(math.log2(size))
    passing = (2 * said.sums + said.gathered) / network.bandwidth
    return reading + said.calls * steps * network.latency + passing

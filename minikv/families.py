"""What architectures do that Llama does not, and the names that their configurations use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .numbers import is_positive, is_whole

LIMIT = 2**31 - 1  # no dimension of a model that fits in memory comes near it
MOST_LAYERS = 10**6  # far more than there are; lists are made of them
SLIDING = "sliding_attention"
FULL = "full_attention"


@dataclass(frozen=True)
class RopeScaling:
    """Stretched rotary frequencies.

    With all four numbers Llama 3's (``rope_type`` ``"llama3"``), which stretches long wavelengths;
    with `factor` alone every frequency is divided by it (``"linear"``, Gemma 3).

    Raises
    ------
    ConfigError
        If it is not one positive number, or four that fit together.
    """

    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None

    def __post_init__(self) -> None:
        low: Any = self.low_freq_factor
        high: Any = self.high_freq_factor
        length = self.original_max_position_embeddings
        if not is_positive(self.factor):
            raise ConfigError(f"RoPE's factor is {self.factor!r:.80}, expected a positive number")
        if low is None and high is None and length is None:
            return
        if not (is_positive(low) and is_positive(high) and is_whole(length, 1, LIMIT)):
            raise ConfigError(
                f"RoPE 'llama3': low_freq_factor {low!r:.40}, high_freq_factor "
                f"{high!r:.40}, original_max_position_embeddings {length!r:.40}; "
                "expected three positive numbers, the last whole"
            )
        if low >= high:
            raise ConfigError("RoPE 'llama3': low_freq_factor must be below high_freq_factor")

    @property
    def kind(self) -> str:
        """Its ``rope_type``: ``"linear"`` or ``"llama3"``."""
        return "linear" if self.low_freq_factor is None else "llama3"


@dataclass(frozen=True)
class Family:
    """What an architecture does that Llama does not; each is one line of the decoder.

    Attributes
    ----------
    qkv_bias : bool
        Queries, keys and values are projected with a bias.
    qk_norm : bool
        An RMSNorm over each head of the queries and keys, before their rotation.
    sandwich_norms : bool
        An RMSNorm also after attention and after the MLP, before they are added to the stream.
    norm_offset : float
        Norm weights are stored as what is added to this.
    scaled_embedding : bool
        Embeddings are multiplied by sqrt(D).
    hidden_act : {"silu", "gelu_pytorch_tanh"}
        The MLP's activation.
    """

    qkv_bias: bool = False
    qk_norm: bool = False
    sandwich_norms: bool = False
    norm_offset: float = 0.0
    scaled_embedding: bool = False
    hidden_act: str = "silu"


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(qk_norm=True),
    "gemma3_text": Family(
        qk_norm=True,
        sandwich_norms=True,
        norm_offset=1.0,
        scaled_embedding=True,
        hidden_act="gelu_pytorch_tanh",
    ),
}

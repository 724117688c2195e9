"""The shape of a model, under the names of Hugging Face's ``config.json``.

Letters used in the shape comments of the whole library::

    T  tokens in this call          D  hidden_size             H  num_attention_heads
    S  tokens that a query sees     F  intermediate_size       G  num_key_value_heads
    V  vocab_size                   L  num_hidden_layers       d  head_dim
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .checks import check_scaling, checked, is_whole
from .errors import ConfigError

LIMIT = 2**31  # no dimension of a model that fits in memory comes near it


@dataclass(frozen=True)
class RopeScaling:
    """Stretched rotary frequencies.

    With all four numbers Llama 3's (``rope_type`` ``"llama3"``), which stretches long wavelengths;
    with `factor` alone every frequency is divided by it (``"linear"``, Gemma 3).
    """

    factor: float
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    original_max_position_embeddings: int | None = None

    def __post_init__(self) -> None:
        check_scaling(self, LIMIT)


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
SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class ModelConfig:
    """The numbers that fix a decoder's shape; immutable.

    Parameters
    ----------
    vocab_size, hidden_size, intermediate_size, num_hidden_layers : int
        V, D, F and L.
    num_attention_heads, num_key_value_heads : int
        H query heads share G key/value heads; H is a multiple of G.
    head_dim : int
        Width of one head; even, since RoPE turns pairs. H * head_dim need not be D.
    max_position_embeddings : int
        The longest context, in tokens.
    rms_norm_eps, rope_theta : float
        RMSNorm's epsilon and RoPE's base.
    rope_scaling : RopeScaling or None
        Frequency scaling of the layers with full attention.
    tie_word_embeddings : bool
        Whether the embedding matrix is also the output matrix.
    bos_token_id : int or None
        Token that starts a text, where the model has one.
    eos_token_id : int or sequence of int
        Tokens that end generation; kept as a tuple.
    model_type : {"llama", "mistral", "qwen2", "qwen3", "gemma3_text"}
        The architecture; `family` says what that changes.
    query_pre_attn_scalar : float or None
        Scores are divided by its root; `head_dim` by default.
    sliding_window : int or None
        How many positions, its own included, a token sees in a ``"sliding_attention"`` layer.
    layer_types : sequence of str
        ``"full_attention"`` or ``"sliding_attention"`` for each layer; all full where empty.
    rope_local_base_freq : float or None
        RoPE's base in sliding layers, unscaled; the others' base and scaling by default.

    Raises
    ------
    ConfigError
        If the numbers do not fit together.

    Examples
    --------
    >>> config = ModelConfig(vocab_size=64, hidden_size=24, intermediate_size=40,
    ...                      num_hidden_layers=2, num_attention_heads=4,
    ...                      num_key_value_heads=2, head_dim=6)
    >>> config.kv_bytes_per_token("float32")
    192
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: tuple[int, ...] = ()
    model_type: str = "llama"
    query_pre_attn_scalar: float | None = None
    sliding_window: int | None = None
    layer_types: tuple[str, ...] = ()
    rope_local_base_freq: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = checked(field.name, str(field.type), getattr(self, field.name), LIMIT)
            object.__setattr__(self, field.name, value)
        if not isinstance(self.model_type, str) or self.model_type not in FAMILIES:
            raise ConfigError(f"model_type is {self.model_type!r:.80}; built: {[*FAMILIES]}")
        if self.layer_types and len(self.layer_types) != self.num_hidden_layers:
            raise ConfigError(
                f"layer_types names {len(self.layer_types)} layers, "
                f"num_hidden_layers is {self.num_hidden_layers}"
            )
        for kind in self.layer_types:
            if kind not in (SLIDING, FULL):
                raise ConfigError(f"layer_types holds {kind!r:.80}, which is not built")
        if SLIDING in self.layer_types and not is_whole(self.sliding_window, 1, LIMIT):
            raise ConfigError(
                f"sliding_window is {self.sliding_window!r:.80}, expected a whole "
                "number >= 1 for the sliding layers"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}, expected a multiple of "
                f"num_key_value_heads, which is {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}, expected an even number for RoPE")
        first = () if self.bos_token_id is None else (self.bos_token_id,)
        for token in (*first, *self.eos_token_id):
            if not is_whole(token, 0, self.vocab_size):
                raise ConfigError(
                    f"special token id {token!r:.80} is outside the vocabulary of {self.vocab_size}"
                )

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> ModelConfig:
        """Read the contents of a ``config.json``.

        Both spellings of the rotary settings are read: ``rope_theta`` with ``rope_scaling``
        (transformers 4) and ``rope_parameters`` (transformers 5).

        Raises
        ------
        ConfigError
            If a key is missing or mistyped, or asks for a feature that is not built; the
            message names the key.
        """
        from .weights.config_json import settings

        return cls(**settings(given))

    @classmethod
    def from_file(cls, path: str | Path) -> ModelConfig:
        """Read ``config.json``; errors name the file."""
        from .weights.config_json import read

        return read(Path(path))

    def to_dict(self) -> dict[str, Any]:
        """The contents of a ``config.json`` that reads back as this configuration.

        Not for what its architecture lacks, such as a llama's sliding layers: `from_dict` refuses
        them, and `minikv.weights.save_folder` does before it writes.
        """
        from .weights.config_json import as_json

        return as_json(self)

    @property
    def family(self) -> Family:
        """What the architecture does that Llama does not."""
        return FAMILIES[self.model_type]

    @property
    def attention_scale(self) -> float:
        """What the scores q . k are multiplied by."""
        return 1 / math.sqrt(self.query_pre_attn_scalar or self.head_dim)

    @property
    def embedding_scale(self) -> float:
        """sqrt(D) as a float32, which is what it is in transformers."""
        return float(np.float32(math.sqrt(self.hidden_size)))

    def window(self, layer: int) -> int | None:
        """How many positions, its own included, a token sees in a layer; None for all."""
        return self.sliding_window if self.layer_types[layer : layer + 1] == (SLIDING,) else None

    def reach(self, start: int, stop: int) -> int | None:
        """How far back the stream before layer `stop` depends on the stream before layer `start`.

        Position t of the one depends on positions t - reach to t of the other: each sliding layer
        between them adds its window less one. None if a layer between them sees everything (T11).

        Examples
        --------
        >>> import minikv
        >>> local = minikv.tiny_config(sliding_window=4, layer_types=("sliding_attention",) * 2)
        >>> local.reach(0, 2)
        6
        """
        windows = [self.window(layer) for layer in range(start, stop)]
        return None if None in windows else sum(window - 1 for window in windows if window)

    @property
    def attention_width(self) -> int:
        """Numbers in all query heads of a token, H*d."""
        return self.num_attention_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """How many weights the model has; a tied output matrix counts once."""
        D, F, d = self.hidden_size, self.intermediate_size, self.head_dim
        keys, family = self.num_key_value_heads * d, self.family
        layer = 2 * D * (self.attention_width + keys) + 3 * D * F + 2 * D
        layer += (self.attention_width + 2 * keys) * family.qkv_bias
        layer += 2 * d * family.qk_norm + 2 * D * family.sandwich_norms
        embeddings = self.vocab_size * D * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + D

    def kv_bytes_per_token(self, dtype: str = "float32") -> int:
        """Bytes that one token's keys and values take over all layers: L * 2 * G * d * s."""
        row = self.num_key_value_heads * self.head_dim
        return self.num_hidden_layers * 2 * row * _ITEMSIZE[dtype]

    def residual_bytes_per_token(self, dtype: str = "float32") -> int:
        """Bytes of one residual vector, D * s; one at every layer takes L times that."""
        return self.hidden_size * _ITEMSIZE[dtype]


_ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}

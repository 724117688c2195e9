"""The shape of a model, under the names of Hugging Face's ``config.json``.

Letters used in the shape comments of the whole library::

    T  tokens in this call          D  hidden_size             H  num_attention_heads
    S  tokens that a query sees     F  intermediate_size       G  num_key_value_heads
    V  vocab_size                   L  num_hidden_layers       d  head_dim
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import ConfigError

LIMIT = 2**31  # no dimension of a model that fits in memory comes near it


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretched rotary frequencies (``rope_type`` ``"llama3"``)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


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
        Llama 3's frequency scaling.
    tie_word_embeddings : bool
        Whether the embedding matrix is also the output matrix.
    bos_token_id : int or None
        Token that starts a text, where the model has one.
    eos_token_id : tuple of int
        Tokens that end generation.

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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not is_whole(value, 1, LIMIT):
                raise ConfigError(f"{field.name} is {value!r:.80}, expected a whole number >= 1")
            if field.type == "float":
                if not is_positive(value):
                    raise ConfigError(f"{field.name} is {value!r:.80}, expected a positive number")
                object.__setattr__(self, field.name, float(value))
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
                raise ConfigError(f"special token id {token!r:.80} is outside the vocabulary "
                                  f"of {self.vocab_size}")  # fmt: skip

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
        path = Path(path)
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(
                f"{path} does not exist; a model folder in Hugging Face layout has a config.json"
            ) from None
        except (ValueError, RecursionError) as error:  # ConfigError, JSON and UTF-8 errors
            raise ConfigError(f"{path}: {error}") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None

    def to_dict(self) -> dict[str, Any]:
        """The contents of a ``config.json`` that reads back as this configuration."""
        out: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"],
                               "hidden_act": "silu", **asdict(self)}  # fmt: skip
        out["eos_token_id"] = list(self.eos_token_id)
        if self.rope_scaling is not None:
            out["rope_scaling"]["rope_type"] = "llama3"
        return out

    @property
    def attention_width(self) -> int:
        """Numbers in all query heads of a token, H*d."""
        return self.num_attention_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """How many weights the model has; a tied output matrix counts once."""
        D, heads = self.hidden_size, 2 * (self.num_attention_heads + self.num_key_value_heads)
        layer = D * (heads * self.head_dim + 3 * self.intermediate_size + 2)
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + self.hidden_size

    def kv_bytes_per_token(self, dtype: str = "float32") -> int:
        """Bytes that one token's keys and values take over all layers: L * 2 * G * d * s."""
        row = self.num_key_value_heads * self.head_dim
        return self.num_hidden_layers * 2 * row * _ITEMSIZE[dtype]

    def residual_bytes_per_token(self, dtype: str = "float32") -> int:
        """Bytes of one residual vector, D * s; one at every layer takes L times that."""
        return self.hidden_size * _ITEMSIZE[dtype]


_ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def is_whole(value: Any, least: int, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < limit


def is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf

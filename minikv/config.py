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

# Keys of config.json that would change the forward pass, with the values that mean "not used".
_NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", "swish", None),
    "hidden_activation": ("silu", "swish", None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "pretraining_tp": (0, 1, None),
    "quantization_config": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "num_local_experts": (0, None),
}
_LIMIT = 2**31  # no dimension of a model that fits in memory comes near it


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
            if field.type == "int" and not _is_whole(value, 1, _LIMIT):
                raise ConfigError(f"{field.name} is {value!r:.80}, expected a whole number >= 1")
            if field.type == "float":
                if not _is_positive(value):
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
            if not _is_whole(token, 0, self.vocab_size):
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
        if not isinstance(given, Mapping):
            raise ConfigError(f"config.json holds a {type(given).__name__}, expected an object")
        if (kind := given.get("model_type", "llama")) != "llama":
            raise ConfigError(f"model_type is {kind!r:.80}, which is not built: only 'llama'")
        for key, unused in _NOT_BUILT.items():
            if given.get(key) not in unused:
                raise ConfigError(f"{key} is {given[key]!r:.80}, a feature that is not built")
        required = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                    "num_attention_heads")  # fmt: skip
        for key in required:
            if key not in given:
                raise ConfigError(f"config.json has no {key!r}, which every model needs")
        rope = _rope_settings(given)
        heads, width = given["num_attention_heads"], given["hidden_size"]
        head_dim = given.get("head_dim")
        if head_dim is None:
            if not (_is_whole(heads, 1, _LIMIT) and _is_whole(width, 1, _LIMIT)) or width % heads:
                raise ConfigError(f"hidden_size is {width!r:.80}, expected a multiple of num_"
                                  f"attention_heads ({heads!r:.80}) without head_dim")  # fmt: skip
            head_dim = width // heads
        eos = given.get("eos_token_id")
        if eos is None or isinstance(eos, int):
            eos = () if eos is None else (eos,)
        if not isinstance(eos, (list, tuple)):
            raise ConfigError(f"eos_token_id is {eos!r:.80}, expected a token id or a list of them")
        kv_heads = given.get("num_key_value_heads")
        tied = given.get("tie_word_embeddings", False)
        if not isinstance(tied, bool):
            raise ConfigError(f"tie_word_embeddings is {tied!r:.80}, expected true or false")
        return cls(
            **{key: given[key] for key in required},
            num_key_value_heads=heads if kv_heads is None else kv_heads,
            head_dim=head_dim,
            max_position_embeddings=given.get("max_position_embeddings", 2048),
            rms_norm_eps=given.get("rms_norm_eps", 1e-6),
            tie_word_embeddings=tied,
            bos_token_id=given.get("bos_token_id"),
            eos_token_id=tuple(eos),
            **rope,
        )

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


def _rope_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling`` from either spelling."""
    merged: dict[str, Any] = {}
    for key in ("rope_parameters", "rope_scaling"):
        part = given.get(key) or {}
        if not isinstance(part, Mapping):
            raise ConfigError(f"{key} is {part!r:.80}, expected an object or null")
        merged = {**part, **merged}
    theta = given.get("rope_theta", merged.get("rope_theta", 10000.0))
    kind = merged.get("rope_type", merged.get("type", "default"))
    if merged.get("partial_rotary_factor", 1) != 1:
        raise ConfigError("partial_rotary_factor other than 1 is a feature that is not built")
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind != "llama3":
        raise ConfigError(f"rope_type is {kind!r:.80}, which is not built: 'default', 'llama3' are")
    numbers: dict[str, Any] = {field.name: merged.get(field.name) for field in fields(RopeScaling)}
    for name, value in numbers.items():
        if not _is_positive(value):
            raise ConfigError(f"{name} is {value!r:.80}, RoPE 'llama3' takes a positive number")
    if not numbers["low_freq_factor"] < numbers["high_freq_factor"]:
        raise ConfigError("RoPE scaling 'llama3': low_freq_factor must be below high_freq_factor")
    numbers["original_max_position_embeddings"] = int(numbers["original_max_position_embeddings"])
    return {"rope_theta": theta, "rope_scaling": RopeScaling(**numbers)}


def _is_whole(value: Any, least: int, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < limit


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf

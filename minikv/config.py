"""The shape of a model, under the names of Hugging Face's ``config.json``.

Letters used in the shape comments of the whole library::

    T  tokens in this call          D  hidden_size             H  num_attention_heads
    S  tokens that a query sees     F  intermediate_size       G  num_key_value_heads
    V  vocab_size                   L  num_hidden_layers       d  head_dim
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import config_json
from .errors import ConfigError
from .families import FAMILIES, FULL, LIMIT, MOST_LAYERS, SLIDING, Family, RopeScaling
from .numbers import is_positive, is_whole

_DIMENSIONS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_POSITIVE = ("rms_norm_eps", "rope_theta")
_POSITIVE_OR_NONE = ("query_pre_attn_scalar", "rope_local_base_freq")
_ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


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
        ``"full_attention"`` or ``"sliding_attention"`` for each layer; all full where not given.
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
        if not isinstance(self.model_type, str) or self.model_type not in FAMILIES:
            raise ConfigError(f"model_type is {self.model_type!r:.80}; built: {[*FAMILIES]}")
        self._check_numbers()
        self._check_heads()
        self._check_layer_types()
        self._check_special_tokens()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _check_numbers(self) -> None:
        for name in _DIMENSIONS:
            value = getattr(self, name)
            most = MOST_LAYERS if name == "num_hidden_layers" else LIMIT
            if not is_whole(value, 1, most):
                raise ConfigError(f"{name} is {value!r:.80}, expected a whole number >= 1")
            self._set(name, int(value))
        for name in (*_POSITIVE, *_POSITIVE_OR_NONE):
            value = getattr(self, name)
            if value is None and name in _POSITIVE_OR_NONE:
                continue
            if not is_positive(value):
                raise ConfigError(f"{name} is {value!r:.80}, expected a positive number")
            self._set(name, float(value))
        if not isinstance(self.tie_word_embeddings, bool):
            raise ConfigError(
                f"tie_word_embeddings is {self.tie_word_embeddings!r:.80}, expected True or False"
            )
        if not isinstance(self.rope_scaling, RopeScaling | None):
            raise ConfigError(
                f"rope_scaling is {self.rope_scaling!r:.80}, expected a RopeScaling or None"
            )

    def _check_heads(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}, expected a multiple of "
                f"num_key_value_heads, which is {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}, expected an even number for RoPE")

    def _check_layer_types(self) -> None:
        if not isinstance(self.layer_types, (list, tuple)):
            raise ConfigError(f"layer_types is {self.layer_types!r:.80}, expected a list")
        self._set("layer_types", tuple(self.layer_types) or (FULL,) * self.num_hidden_layers)
        if len(self.layer_types) != self.num_hidden_layers:
            raise ConfigError(
                f"layer_types names {len(self.layer_types)} layers, "
                f"num_hidden_layers is {self.num_hidden_layers}"
            )
        for kind in self.layer_types:
            if kind not in (SLIDING, FULL):
                raise ConfigError(f"layer_types holds {kind!r:.80}, which is not built")
        if self.slides and not is_whole(self.sliding_window, 1, LIMIT):
            raise ConfigError(
                f"sliding_window is {self.sliding_window!r:.80}, expected a whole "
                "number >= 1 for the sliding layers"
            )

    def _check_special_tokens(self) -> None:
        ends = self.eos_token_id
        if isinstance(ends, int):
            ends = (ends,)
        if not isinstance(ends, (list, tuple)):
            raise ConfigError(
                f"eos_token_id is {ends!r:.80}, expected a token id or a list of them"
            )
        self._set("eos_token_id", tuple(ends))
        first = () if self.bos_token_id is None else (self.bos_token_id,)
        for token in (*first, *self.eos_token_id):
            if not is_whole(token, 0, self.vocab_size - 1):
                raise ConfigError(
                    f"special token id {token!r:.80} is outside the vocabulary of {self.vocab_size}"
                )

    @classmethod
    def from_dict(cls, contents: Mapping[str, Any]) -> ModelConfig:
        """Read the contents of a ``config.json``.

        Both spellings of the rotary settings are read: ``rope_theta`` with ``rope_scaling``
        (transformers 4) and ``rope_parameters`` (transformers 5).

        Raises
        ------
        ConfigError
            If a key is missing or mistyped, or asks for a feature that is not built; the
            message names the key.
        """
        return cls(**config_json.from_dict(contents))

    @classmethod
    def from_file(cls, path: str | Path) -> ModelConfig:
        """Read ``config.json``; errors name the file."""
        contents = config_json.read(Path(path))
        try:
            return cls.from_dict(contents)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read a model folder's ``config.json``, and end tokens from ``generation_config.json``.

        The latter replace the former where they are given, as in transformers: chat models name
        there what ends a turn.
        """
        config = cls.from_file(Path(folder) / "config.json")
        path = Path(folder) / "generation_config.json"
        if not path.exists():
            return config
        contents = config_json.read(path)
        try:
            return config.with_ends(contents)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def with_ends(self, generation: Mapping[str, Any]) -> ModelConfig:
        """The same with the ``eos_token_id`` of a ``generation_config.json``, where it has any."""
        if not isinstance(generation, Mapping):
            raise ConfigError(f"it holds a {type(generation).__name__}, expected an object")
        ends = generation.get("eos_token_id")
        return self if ends is None else replace(self, eos_token_id=ends)

    def to_dict(self) -> dict[str, Any]:
        """The contents of a ``config.json`` that reads back as this configuration.

        Not for what its architecture lacks, such as a llama's sliding layers: `from_dict` refuses
        them, and `minikv.weights.save_folder` does before it writes.
        """
        return config_json.to_dict(asdict(self))

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

    @property
    def slides(self) -> bool:
        """Whether any layer sees a window only."""
        return SLIDING in self.layer_types

    def window(self, layer: int) -> int | None:
        """How many positions, its own included, a token sees in a layer; None for all."""
        return self.sliding_window if self.layer_types[layer] == SLIDING else None

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
        return sum(math.prod(shape) for shape in expected_shapes(self).values())

    def kv_bytes_per_token(self, dtype: str = "float32") -> int:
        """Bytes that one token's keys and values take over all layers: L * 2 * G * d * s."""
        row = self.num_key_value_heads * self.head_dim
        return self.num_hidden_layers * 2 * row * _ITEMSIZE[dtype]

    def residual_bytes_per_token(self, dtype: str = "float32") -> int:
        """Bytes of one residual vector, D * s; one at every layer takes L times that."""
        return self.hidden_size * _ITEMSIZE[dtype]


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model; weight matrices are (out, in).

    Examples
    --------
    >>> import minikv
    >>> expected_shapes(minikv.tiny_config())["model.layers.0.self_attn.k_proj.weight"]
    (12, 24)
    """
    layer = _layer_shapes(config)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, config.hidden_size)
    }
    for index in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (config.hidden_size,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    return shapes


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    D = config.hidden_size
    F = config.intermediate_size
    queries = config.attention_width
    keys = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (D,),
        "self_attn.q_proj.weight": (queries, D),
        "self_attn.k_proj.weight": (keys, D),
        "self_attn.v_proj.weight": (keys, D),
        "self_attn.o_proj.weight": (D, queries),
        "post_attention_layernorm.weight": (D,),
        "mlp.gate_proj.weight": (F, D),
        "mlp.up_proj.weight": (F, D),
        "mlp.down_proj.weight": (D, F),
    }
    if config.family.sandwich_norms:
        shapes["pre_feedforward_layernorm.weight"] = (D,)
        shapes["post_feedforward_layernorm.weight"] = (D,)
    if config.family.qkv_bias:
        shapes["self_attn.q_proj.bias"] = (queries,)
        shapes["self_attn.k_proj.bias"] = (keys,)
        shapes["self_attn.v_proj.bias"] = (keys,)
    if config.family.qk_norm:
        shapes["self_attn.q_norm.weight"] = (config.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    return shapes

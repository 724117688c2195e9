"""Hugging Face's ``config.json``, in the spellings of transformers 4 and 5.

Between the contents of the file and the arguments of `minikv.ModelConfig`; what a family's file
says in its own way is one record, `Spelling`. One rule holds for a setting that has two places or
two spellings: they must agree, or the file is refused by the names of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .families import FAMILIES, FULL, LIMIT, MOST_LAYERS, SLIDING, RopeScaling
from .numbers import is_positive, is_whole

_THETA = 10000.0  # RoPE's base where nothing says it
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
# Settings that would change every family's forward pass, and the values that mean "not used".
_NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (1, None),
}
_ACTIVATIONS = {"silu": ("silu", "swish"), "gelu_pytorch_tanh": ("gelu_pytorch_tanh",)}
_UNSET = (False, None)
_BITS = (2, 4, 8)  # of a quantised weight: those that do not lie across two words of 32

JSON = Any
"""What a JSON file may hold: null, a number, a text, a list, an object."""

Contents = Mapping[str, JSON]


def read(path: Path) -> Contents:
    """The contents of a file, or a `ConfigError` that names it."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")  # a pipe would be waited for
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; a model folder in Hugging Face layout has a config.json"
        ) from None
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def from_dict(contents: Contents) -> dict[str, Any]:
    """The arguments of `ModelConfig` from the contents of a ``config.json``.

    Raises
    ------
    ConfigError
        If a key is missing or mistyped, asks for a feature that is not built, or contradicts
        another key.
    """
    if not isinstance(contents, Mapping):
        raise ConfigError(f"config.json holds a {type(contents).__name__}, expected an object")
    given = _text_half(contents)
    kind = given.get("model_type", "llama")
    if not isinstance(kind, str) or kind not in FAMILIES:
        built = ", ".join(map(repr, FAMILIES))
        raise ConfigError(f"model_type is {kind!r:.80}, which is not built; built: {built}")
    spelling = SPELLINGS[kind]
    _refuse_what_is_not_built(given, kind)
    quantization(contents)
    given = {**spelling.defaults, **given, "model_type": kind}
    for key in _REQUIRED:
        if key not in given:
            raise ConfigError(f"config.json has no {key!r}, which every model needs")
    if not is_whole(given["num_hidden_layers"], 1, MOST_LAYERS):
        raise ConfigError(
            f"num_hidden_layers is {given['num_hidden_layers']!r:.80}, expected a whole number >= 1"
        )
    layer_types = spelling.layer_types(given)
    sliding_window = given["sliding_window"] if SLIDING in layer_types else None
    ends = given.get("eos_token_id")
    heads = given.get("num_key_value_heads")
    scalar = given.get("query_pre_attn_scalar") if spelling.own_scale else None
    return {
        **{key: given[key] for key in _REQUIRED},
        "model_type": kind,
        "num_key_value_heads": given["num_attention_heads"] if heads is None else heads,
        "head_dim": _head_dim(given),
        "max_position_embeddings": given["max_position_embeddings"],
        "rms_norm_eps": given.get("rms_norm_eps", 1e-6),
        "tie_word_embeddings": given.get("tie_word_embeddings", False),
        "bos_token_id": given.get("bos_token_id"),
        "eos_token_id": () if ends is None else ends,
        "query_pre_attn_scalar": scalar,
        "layer_types": layer_types,
        "sliding_window": sliding_window,
        **spelling.rope(given),
    }


def to_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a ``config.json`` from the arguments of `ModelConfig`, as plain values.

    `minikv.weights.save_folder` checks that they read back as the same model.
    """
    kind = values["model_type"]
    spelling = SPELLINGS[kind]
    slides = SLIDING in values["layer_types"]
    contents = {
        key: value for key, value in values.items() if value is not None or key == "bos_token_id"
    }
    contents[spelling.activation] = FAMILIES[kind].hidden_act
    contents["architectures"] = [spelling.architecture]
    contents["eos_token_id"] = list(values["eos_token_id"])
    contents["layer_types"] = list(values["layer_types"])
    contents["sliding_window"] = values["sliding_window"] if slides else None
    if not slides and not spelling.own_scale:
        contents.pop("rope_local_base_freq", None)
    mixed = slides and FULL in values["layer_types"]
    if not mixed and not (slides and spelling.writes_layer_types):
        del contents["layer_types"]
    if spelling.window_switch is not None:
        contents[spelling.window_switch] = slides
    if values["rope_scaling"] is not None:
        numbers = {key: value for key, value in values["rope_scaling"].items() if value is not None}
        contents["rope_scaling"] = {"rope_type": RopeScaling(**numbers).kind} | numbers
    if spelling.own_scale:  # which has its own idea of what a missing key means
        contents.setdefault("query_pre_attn_scalar", float(values["head_dim"]))
        if not slides or values["rope_scaling"] is None:  # else they are scaled as the others are
            contents.setdefault("rope_local_base_freq", values["rope_theta"])
    scalar = contents.get("query_pre_attn_scalar")
    if scalar is not None and scalar.is_integer():
        contents["query_pre_attn_scalar"] = int(scalar)  # as transformers insists
    return contents


def agreed(setting: str, places: Mapping[str, Any]) -> JSON:
    """The value of a setting that may stand in several places; None where it stands in none.

    Parameters
    ----------
    setting : str
        What it is, for the message.
    places : mapping of str to any
        By the name of each place what it says; None where it says nothing.

    Raises
    ------
    ConfigError
        If two places say two things.

    Examples
    --------
    >>> agreed("RoPE's base", {"rope_theta": None, "rope_parameters.rope_theta": 1e6})
    1000000.0
    """
    told = {place: value for place, value in places.items() if value is not None}
    if not told:
        return None
    first = next(iter(told))
    for place, value in told.items():
        if value != told[first]:
            raise ConfigError(
                f"{setting} is {told[first]!r:.80} in {first} and {value!r:.80} in {place}: "
                "remove one of them"
            )
    return told[first]


@dataclass(frozen=True)
class Quantization:
    """How MLX packs matrices: so many bits a weight, a scale and a bias for each group of a row."""

    group_size: int
    bits: int


def quantization(contents: Contents) -> Quantization | None:
    """What a ``config.json`` says of quantised weights; None where it says nothing.

    MLX writes it under ``quantization``, and mostly once more as ``quantization_config``. The
    latter alone is what other libraries write, which is not built.

    Raises
    ------
    ConfigError
        If it is another kind of quantisation than MLX's, or has other settings for some layers.

    Examples
    --------
    >>> quantization({"quantization": {"group_size": 64, "bits": 4}})
    Quantization(group_size=64, bits=4)
    """
    text = contents.get("text_config")
    levels = [contents, text] if isinstance(text, Mapping) else [contents]
    told = [level["quantization"] for level in levels if level.get("quantization") is not None]
    for level in levels:
        other = level.get("quantization_config")
        if other is not None and other not in told:
            raise ConfigError(f"quantization_config is {other!r:.80}, a feature that is not built")
    if not told:
        return None
    return _quantization(told[0])


def _quantization(told: JSON) -> Quantization:
    """MLX's record, checked."""
    wrong = f"quantization is {told!r:.80}, expected MLX's group_size and bits (2, 4 or 8)"
    if not isinstance(told, Mapping):
        raise ConfigError(wrong)
    bits = told.get("bits")
    group_size = told.get("group_size")
    if bits not in _BITS or not is_whole(bits) or not is_whole(group_size, 1, LIMIT):
        raise ConfigError(wrong)
    if told.get("mode") not in (None, "affine"):
        raise ConfigError(f"quantization.mode is {told['mode']!r:.80}; only 'affine' is built")
    own = [name for name, value in told.items() if isinstance(value, Mapping)]
    if own:
        raise ConfigError(f"quantization has settings of its own for {own[0]!a:.80}: not built")
    return Quantization(group_size, bits)


def _text_half(contents: Contents) -> Contents:
    """What describes the text model: for a Gemma 3 that sees, too, its ``text_config``.

    Special tokens are taken from the top level first, as transformers does.
    """
    text = contents.get("text_config")
    if not isinstance(text, Mapping) or contents.get("model_type", "gemma3") != "gemma3":
        return contents
    tied = agreed(
        "tie_word_embeddings",
        {
            "config.json": contents.get("tie_word_embeddings"),
            "text_config": text.get("tie_word_embeddings"),
        },
    )
    given = {"model_type": "gemma3_text"} | dict(text)
    given["tie_word_embeddings"] = True if tied is None else tied
    for key in ("bos_token_id", "eos_token_id"):
        if contents.get(key) is not None:
            given[key] = contents[key]
    return given


def _refuse_what_is_not_built(given: Contents, kind: str) -> None:
    spelling = SPELLINGS[kind]
    for key, unused in {**_NOT_BUILT, **spelling.not_built}.items():
        if given.get(key) not in unused:
            raise ConfigError(f"{key} is {given[key]!r:.80}, a feature that is not built")
    built = FAMILIES[kind].hidden_act
    key = spelling.activation
    if given.get(key) not in (None, *_ACTIVATIONS[built]):
        raise ConfigError(
            f"{key} is {given[key]!r:.80}, which is not built for {kind}: only {built!r}"
        )


def _head_dim(given: Contents) -> Any:
    if given.get("head_dim") is not None:
        return given["head_dim"]
    heads = given["num_attention_heads"]
    width = given["hidden_size"]
    if not (is_whole(heads, 1, LIMIT) and is_whole(width, 1, LIMIT)) or width % heads:
        raise ConfigError(
            f"hidden_size is {width!r:.80}, expected a multiple of num_"
            f"attention_heads ({heads!r:.80}) without head_dim"
        )
    return width // heads


# Which layers slide


def _all_full(given: Contents) -> tuple[str, ...]:
    return (FULL,) * given["num_hidden_layers"]


def _all_sliding(given: Contents) -> tuple[str, ...]:
    """Mistral: all slide, or none. transformers passes over its ``layer_types``."""
    layers = given["num_hidden_layers"]
    kinds = (FULL if given["sliding_window"] is None else SLIDING,) * layers
    told = _told_layer_types(given)
    if told is not None and told != kinds:
        raise ConfigError(
            f"layer_types differ from layer to layer, or from sliding_window "
            f"({given['sliding_window']!r:.80}), which holds for every layer of a mistral"
        )
    return kinds


def _sliding_after_the_first(given: Contents) -> tuple[str, ...]:
    """Qwen: where ``use_sliding_window`` is true, from layer ``max_window_layers`` on."""
    told = _told_layer_types(given)
    layers = given["num_hidden_layers"]
    if not given.get("use_sliding_window") or given["sliding_window"] is None:
        return (FULL,) * layers
    first = given["max_window_layers"]
    if not is_whole(first, 0, LIMIT):
        raise ConfigError(f"max_window_layers is {first!r:.80}, expected a whole number")
    if told is not None:
        return told
    return tuple(SLIDING if index >= first else FULL for index in range(layers))


def _full_every_sixth(given: Contents) -> tuple[str, ...]:
    """Gemma 3: all slide but every ``sliding_window_pattern``-th."""
    told = _told_layer_types(given)
    layers = given["num_hidden_layers"]
    period = given["sliding_window_pattern"]
    if not is_whole(period, 1, LIMIT):
        raise ConfigError(f"sliding_window_pattern is {period!r:.80}, expected a whole number >= 1")
    if given["sliding_window"] is None:
        return (FULL,) * layers
    if told is not None:
        return told
    agreed(
        "the period of full layers",
        {
            "sliding_window_pattern": period,
            "_sliding_window_pattern": given.get("_sliding_window_pattern"),
        },
    )
    return tuple(SLIDING if index % period else FULL for index in range(1, layers + 1))


def _told_layer_types(given: Contents) -> tuple[str, ...] | None:
    """``layer_types``, checked; None where it is not given."""
    told = given.get("layer_types")
    layers = given["num_hidden_layers"]
    if told is None:
        return None
    if not isinstance(told, (list, tuple)):
        raise ConfigError(f"layer_types is {told!r:.80}, expected a list")
    if len(told) != layers:
        raise ConfigError(f"layer_types names {len(told)} layers, num_hidden_layers is {layers}")
    for kind in told:
        if kind not in (SLIDING, FULL):
            raise ConfigError(f"layer_types holds {kind!r:.80}, which is not built")
    return tuple(told)


# Rotary settings


def _one_table(given: Contents) -> dict[str, Any]:
    """Of a family whose layers all turn alike.

    Where both spellings are there, transformers takes ``rope_scaling``, and ``rope_theta`` from
    the top level: ``rope_parameters`` must say the same, or that nothing is scaled.
    """
    old = _object_in(given, "rope_scaling")
    new = _object_in(given, "rope_parameters")
    for key in (FULL, SLIDING):
        if key in new:
            raise ConfigError(
                f"rope_parameters holds {key!r}, but all layers of a {given['model_type']} "
                "turn alike"
            )
    outer = given.get("rope_theta")
    if old and new and outer is None and old.get("rope_theta") is None:
        outer = _THETA  # where transformers looks for it then
    theta = agreed(
        "RoPE's base",
        {
            "rope_theta": outer,
            "rope_scaling": old.get("rope_theta"),
            "rope_parameters": new.get("rope_theta"),
        },
    )
    scaling = _scaling("rope_scaling", old, given)
    newer = _scaling("rope_parameters", new, given)
    if old and newer is not None and newer != scaling:
        raise ConfigError("rope_scaling and rope_parameters scale differently: remove one of them")
    return {
        "rope_theta": _THETA if theta is None else theta,
        "rope_scaling": scaling if old else newer,
    }


def _two_tables(given: Contents) -> dict[str, Any]:
    """Of Gemma 3: one table for layers that see everything, and an unscaled one for the others."""
    old = _object_in(given, "rope_scaling")
    new = _object_in(given, "rope_parameters")
    if new and not new.keys() & {FULL, SLIDING}:
        raise ConfigError(
            f"rope_parameters holds {sorted(map(str, new))!s:.80}, expected {FULL!r} and "
            f"{SLIDING!r} of a {given['model_type']}"
        )
    full = _object_in(new, FULL)
    local = _object_in(new, SLIDING)
    for place, part in (("rope_scaling", old), ("rope_parameters", full)):
        if part.get("type", "default") != "default" and "rope_type" not in part:
            raise ConfigError(
                f"{place} has 'type' without 'rope_type', which transformers 4 obeys and 5 does "
                "not: write 'rope_type'"
            )
    theta = agreed(
        "RoPE's base",
        {
            "rope_theta": given.get("rope_theta"),
            "rope_scaling": old.get("rope_theta"),
            f"rope_parameters.{FULL}": full.get("rope_theta"),
        },
    )
    local_theta = agreed(
        "RoPE's base in sliding layers",
        {
            "rope_local_base_freq": given.get("rope_local_base_freq"),
            f"rope_parameters.{SLIDING}": local.get("rope_theta"),
        },
    )
    scaling = _scaling("rope_scaling", old, given)
    newer = _scaling(f"rope_parameters.{FULL}", full, given)
    if old and full and newer != scaling:
        raise ConfigError("rope_scaling and rope_parameters scale differently: remove one of them")
    if _scaling(f"rope_parameters.{SLIDING}", local, given) is not None:
        raise ConfigError("rope_parameters scales sliding layers, which is not built")
    return {
        "rope_theta": 1e6 if theta is None else theta,
        "rope_scaling": scaling if old else newer,
        "rope_local_base_freq": 10000.0 if local_theta is None else local_theta,
    }


def _scaling(place: str, part: Contents, given: Contents) -> RopeScaling | None:
    """What an object of rotary settings scales by; None where it does not."""
    names = {f"{place}.{key}": part.get(key) for key in ("rope_type", "type")}
    kind = agreed("RoPE's type", names)
    if part.get("partial_rotary_factor", 1) not in (1, None):
        raise ConfigError(f"{place}.partial_rotary_factor is a feature that is not built")
    if kind is None or kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(_positive("factor", part, kind))
    if kind != "llama3":
        raise ConfigError(
            f"rope_type is {kind!r:.80} in {place}, which is not built: 'default', 'linear' and "
            "'llama3' are"
        )
    key = "original_max_position_embeddings"
    length = _positive(key, part, kind)  # of the top level, transformers 4 and 5 make two things
    agreed(key, {place: length, "config.json": given.get(key)})
    return RopeScaling(
        factor=_positive("factor", part, kind),
        low_freq_factor=_positive("low_freq_factor", part, kind),
        high_freq_factor=_positive("high_freq_factor", part, kind),
        original_max_position_embeddings=int(length),
    )


def _positive(name: str, part: Contents, kind: str) -> Any:
    value = part.get(name)
    if not is_positive(value):
        raise ConfigError(f"{name} is {value!r:.80}, RoPE {kind!r} takes a positive number")
    return value


def _object_in(given: Contents, key: str) -> Contents:
    """An object that a key holds; empty where it is missing or null."""
    value = given.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} is {value!r:.80}, expected an object or null")
    return value


@dataclass(frozen=True)
class Spelling:
    """How the ``config.json`` of a family is read, as transformers' class of the same name does.

    Attributes
    ----------
    architecture : str
        The class, as ``architectures`` names it.
    defaults : mapping
        What a missing key means, where that is not the same for all families.
    not_built : mapping
        Keys that the family reads and minikv does not build, with the values that turn them off.
        A key that the family does not read changes nothing and is passed over.
    activation : str
        The key of the activation's name.
    layer_types : callable
        Contents to the kind of each layer.
    writes_layer_types : bool
        Whether ``layer_types`` is a key of the family, to be written where layers slide.
    window_switch : str or None
        A key that must be true for windows to count.
    rope : callable
        Contents to the rotary arguments of `ModelConfig`.
    own_scale : bool
        Whether it reads ``query_pre_attn_scalar``, and bases RoPE by layer type.
    """

    architecture: str
    defaults: Contents
    not_built: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    activation: str = "hidden_act"
    layer_types: Callable[[Contents], tuple[str, ...]] = _all_full
    writes_layer_types: bool = False
    window_switch: str | None = None
    rope: Callable[[Contents], dict[str, Any]] = _one_table
    own_scale: bool = False


_QWEN_DEFAULTS = {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
SPELLINGS = {
    "llama": Spelling(
        architecture="LlamaForCausalLM",
        defaults={"max_position_embeddings": 2048, "eos_token_id": 2},
        not_built={"attention_bias": _UNSET, "mlp_bias": _UNSET},
    ),
    "mistral": Spelling(
        architecture="MistralForCausalLM",
        defaults={
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "eos_token_id": 2,
        },
        layer_types=_all_sliding,
    ),
    "qwen2": Spelling(
        architecture="Qwen2ForCausalLM",
        defaults=_QWEN_DEFAULTS,
        layer_types=_sliding_after_the_first,
        writes_layer_types=True,
        window_switch="use_sliding_window",
    ),
    "qwen3": Spelling(
        architecture="Qwen3ForCausalLM",
        defaults=_QWEN_DEFAULTS | {"head_dim": 128},
        not_built={"attention_bias": _UNSET},
        layer_types=_sliding_after_the_first,
        writes_layer_types=True,
        window_switch="use_sliding_window",
    ),
    "gemma3_text": Spelling(
        architecture="Gemma3ForCausalLM",
        defaults={
            "vocab_size": 262_208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256,
            "tie_word_embeddings": True,
            "eos_token_id": 1,
        },
        not_built={
            "attention_bias": _UNSET,
            "use_bidirectional_attention": _UNSET,
            "attn_logit_softcapping": (None,),
            "final_logit_softcapping": (None,),
        },
        activation="hidden_activation",
        layer_types=_full_every_sixth,
        writes_layer_types=True,
        rope=_two_tables,
        own_scale=True,
    ),
}

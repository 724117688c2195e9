"""A model ready to use: weights, tokenizer, and the handful of calls that people need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import decoder, generation, patching
from .arithmetic import Arithmetic, Array
from .backends import get_backend
from .caches import Cache, make_cache
from .config import ModelConfig
from .errors import InputError, WeightsError
from .layers import Layer, Rotary
from .tokenizer import Tokenizer
from .weights import expected_shapes, load_tensors, release, resolve


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A decoder with its weights; made by `load` or `random_model`.

    Attributes
    ----------
    weights : minikv.decoder.Weights
    tokenizer : Tokenizer or None
        None for `random_model`.
    folder : Path or None
        Where the weights came from.
    """

    weights: decoder.Weights
    tokenizer: Tokenizer | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        config, name = self.config, self.folder.resolve().name if self.folder else "made here"
        return (
            f"<Model: {name}, {config.model_type}, {config.num_hidden_layers} layers, "
            f"{config.num_parameters:,} parameters, {self.arithmetic.name}>"
        )

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.weights.config

    @property
    def arithmetic(self) -> Arithmetic:
        """How the model takes its sums."""
        return self.weights.arithmetic

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The blocks."""
        return self.weights.layers

    def new_cache(self, policy: str = "full", **parameters: Any) -> Cache:
        """An empty cache for one sequence.

        Parameters
        ----------
        policy : str
            ``"full"``, ``"none"``, ``"residual"``, or one that evicts: ``"window"``,
            ``"streaming_llm"``, ``"h2o"``, ``"snapkv"``, ``"tova"``.
        **parameters
            Of the policy: ``budget``, the tokens whose K and V are kept, for all but the first two;
            the others in the class's docstring, as ``help(minikv.caches.Residual)``.
        """
        return make_cache(policy, self.weights, **parameters)

    def logits(self, ids: Sequence[int] | np.ndarray) -> Array:
        """Logits at every position of one text, ``(tokens, vocab)``, in ``arithmetic.dtype``."""
        return decoder.forward(self.weights, [ids], logits="all")

    def forward(
        self,
        sequences: Sequence[Sequence[int] | np.ndarray],
        caches: Sequence[Cache | None] | None = None,
        logits: str = "last",
        hook: decoder.Hook = decoder.no_hook,
    ) -> Array | None:
        """Run a ragged batch, each sequence with its own cache; see `minikv.decoder.forward`."""
        return decoder.forward(self.weights, sequences, caches, logits, hook)

    def generate(
        self,
        ids: Sequence[int] | np.ndarray,
        max_new_tokens: int = 128,
        cache: str | Cache = "full",
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Iterable[int] | None = None,
    ) -> Iterator[int]:
        """Continue `ids`, one token id at a time; the parameters of `minikv.generation.generate`.

        `cache` is one made by `new_cache`, or the name of a policy.
        """
        return generation.generate(
            self.weights,
            ids,
            max_new_tokens,
            make_cache(cache, self.weights),
            temperature,
            top_k,
            top_p,
            seed,
            stop,
        )

    def run_with_cache(self, ids: Sequence[int] | np.ndarray) -> tuple[Array, dict[str, Array]]:
        """Logits of every position, and every activation by its TransformerLens name."""
        return patching.run_with_cache(self.weights, ids)

    def run_with_hooks(
        self, ids: Sequence[int] | np.ndarray, hooks: Mapping[str, Callable]
    ) -> Array:
        """Logits of every position, with ``hooks[name](value, name)`` applied on the way."""
        return patching.run_with_hooks(self.weights, ids, hooks)


def load(
    name_or_folder: str | Path, arithmetic: str | Arithmetic = "float32", backend: str = "numpy"
) -> Model:
    """Load a fetched model by name, or any folder in Hugging Face layout. Never uses the network.

    Parameters
    ----------
    name_or_folder : str or Path
        For example ``"smollm2-135m-instruct"`` (see ``minikv fetch --list``), or a folder with
        ``config.json``, ``model.safetensors`` (or shards) and ``tokenizer.json``.
    arithmetic : {"float32", "float64", "exact"} or Arithmetic
        How sums are taken.
    backend : str
        Who computes; see `minikv.backends`.

    Returns
    -------
    Model

    Raises
    ------
    FetchError, ConfigError, WeightsError, TokenizerError
        In one line: what was given, what was expected, what to do.
    """
    folder = resolve(name_or_folder)
    config = ModelConfig.from_file(folder / "config.json")
    tensors = load_tensors(folder, config)
    tokenizer = Tokenizer.from_folder(folder) if (folder / "tokenizer.json").exists() else None
    return Model(build(config, tensors, arithmetic, backend), tokenizer, folder)


def random_model(
    config: ModelConfig,
    seed: int = 0,
    arithmetic: str | Arithmetic = "float32",
    scale: float = 1.0,
    backend: str = "numpy",
) -> Model:
    """A model with random weights, the same on every machine; for tests and teaching.

    Examples
    --------
    >>> model = random_model(tiny_config(), seed=1)
    >>> model.logits([3, 1, 4]).shape
    (3, 97)
    """
    return Model(build(config, random_tensors(config, seed, scale), arithmetic, backend))


def tiny_config(**changes: Any) -> ModelConfig:
    """A configuration that runs in a millisecond: 2 blocks, 4 query heads on 2 K/V heads."""
    numbers: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 128,
    }
    return ModelConfig(**(numbers | changes))


def random_tensors(config: ModelConfig, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Random weights under Hugging Face's names, float32.

    Uniform with variance ``scale**2 / K`` for a ``(N, K)`` matrix, 1 for the embedding; norms
    multiply by 0.9 to 1.1, biases are from -1 to 1. They are made from the raw bits of PCG64, whose
    stream NumPy guarantees, by operations that round correctly: no platform changes them.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}, expected a whole number from 0 up")
    bits = np.random.PCG64(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        raw = (bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float64)
        unit = (raw - 2.0**23) / 2.0**23  # 24 bits: uniform on [-1, 1)
        if name.endswith(".bias"):
            values = unit
        elif len(shape) == 1:
            values = 1.0 - config.family.norm_offset + 0.1 * unit
        else:
            fan_in = 1 if name == "model.embed_tokens.weight" else shape[1]
            values = unit * (scale * math.sqrt(3.0 / fan_in))
        tensors[name] = values.reshape(shape).astype(np.float32)
    return tensors


def build(
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    arithmetic: str | Arithmetic = "float32",
    backend: str = "numpy",
) -> decoder.Weights:
    """Prepare tensors under Hugging Face's names for an arithmetic on a backend.

    They are rounded to float32 first, but for ``"float64"``: what backends round anew must be one
    thing, or their bits would differ.
    """
    arithmetic = get_backend(backend, arithmetic, config.max_position_embeddings)
    xp, family = arithmetic.xp, config.family
    rotary, local = (Rotary(config, arithmetic, sliding) for sliding in (False, True))
    # glibc gives a large block back to the system when it is freed, to fault it in anew page by
    # page at the next layer, until one of its size has been freed once (mallopt(3)).
    np.empty(31 << 20, dtype=np.uint8)

    def given(name: str) -> np.ndarray:
        tensor = np.asarray(tensors[name])
        with np.errstate(over="ignore"):  # infinity, which is refused where it is read
            wide = arithmetic.name == "float64"
            return tensor if wide else tensor.astype(np.float32, copy=False)

    def norm(name: str, there: bool = True) -> Any:
        if not there:
            return None
        weight = xp.asarray(given(name + ".weight"), dtype=arithmetic.wide)
        return weight + family.norm_offset if family.norm_offset else weight

    def matrix(at: str, *names: str) -> Any:
        parts = [given(f"{at}{name}.weight") for name in names]
        whole = parts[0].view() if len(parts) == 1 else np.concatenate(parts)
        whole.flags.writeable = len(parts) > 1  # a stack of our own, or the user's matrix
        prepared = arithmetic.weight(whole, at + "+".join(names))
        release(parts)
        return prepared

    def layer(index: int) -> Layer:
        at = f"model.layers.{index}."
        heads, sandwich = at + "self_attn.", family.sandwich_norms
        biases = [given(f"{heads}{x}_proj.bias") for x in "qkv"] if family.qkv_bias else []
        return Layer(
            index,
            config,
            arithmetic,
            rotary if config.window(index) is None else local,
            input_layernorm=norm(at + "input_layernorm"),
            qkv_proj=matrix(heads, "q_proj", "k_proj", "v_proj"),
            o_proj=matrix(heads, "o_proj"),
            pre_mlp_layernorm=norm(
                at + ("pre_feedforward_layernorm" if sandwich else "post_attention_layernorm")
            ),
            gate_up_proj=matrix(at + "mlp.", "gate_proj", "up_proj"),
            down_proj=matrix(at + "mlp.", "down_proj"),
            qkv_bias=xp.asarray(np.concatenate(biases), dtype=arithmetic.dtype) if biases else None,
            q_norm=norm(heads + "q_norm", family.qk_norm),
            k_norm=norm(heads + "k_norm", family.qk_norm),
            post_attention_layernorm=norm(at + "post_attention_layernorm", sandwich),
            post_feedforward_layernorm=norm(at + "post_feedforward_layernorm", sandwich),
        )

    missing = sorted(expected_shapes(config).keys() - {*tensors})  # `in` might make the tensor
    if missing:
        raise WeightsError(f"the tensor {missing[0]} is missing")
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    return decoder.Weights(
        config,
        arithmetic,
        embed_tokens=xp.asarray(given("model.embed_tokens.weight"), dtype=arithmetic.dtype),
        layers=tuple(layer(index) for index in range(config.num_hidden_layers)),
        norm=norm("model.norm"),
        lm_head=matrix("", head),
    )

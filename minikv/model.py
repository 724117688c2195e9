"""A model ready to use: weights, tokenizer, and the handful of calls that people need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import decoder, generation, patching
from .arithmetic import Arithmetic
from .arrays import Array
from .build import build, random_tensors
from .caches import Cache, make_cache
from .completion import Completion, Ended, complete
from .config import ModelConfig
from .layers import Hook, Layer, no_hook
from .memory import Memory
from .progress import Progress, silent
from .tokenizer import Tokenizer
from .weights import load_tensors, resolve


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
        config = self.config
        name = "made here"
        if self.folder is not None:
            name = self.folder.resolve().name
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
        caches: Sequence[Memory | None] | None = None,
        logits: str = "last",
        hook: Hook = no_hook,
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
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        observer: generation.Observer | None = None,
        progress: Progress = silent,
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
            min_p,
            repetition_penalty,
            observer,
            progress,
        )

    def complete(
        self,
        text: str | Sequence[str],
        max_new_tokens: int = 128,
        cache: str | Callable[[], Cache] = "full",
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        top_log_probs: int = 0,
        progress: Progress = silent,
        ended: Ended | None = None,
    ) -> Completion | list[Completion]:
        """Continue a text, or several in one ragged batch; see `minikv.completion.complete`.

        Examples
        --------
        >>> model = random_model(tiny_config(), arithmetic="exact")
        >>> model.complete("Hello")
        Traceback (most recent call last):
            ...
        minikv.errors.TokenizerError: the model has no tokenizer.json, which text needs: give ids
        """
        texts = [text] if isinstance(text, str) else list(text)
        found = complete(
            self.weights,
            self.tokenizer,
            texts,
            max_new_tokens,
            cache,
            temperature,
            top_k,
            top_p,
            seed,
            stop,
            min_p,
            repetition_penalty,
            top_log_probs,
            progress,
            ended,
        )
        if isinstance(text, str):
            return found[0]
        return found

    def run_with_cache(self, ids: Sequence[int] | np.ndarray) -> tuple[Array, dict[str, Array]]:
        """Logits of every position, and every activation by its TransformerLens name.

        The "cache" of the name is TransformerLens's word for the activations; KV caches are made
        by `new_cache`.
        """
        return patching.run_with_cache(self.weights, ids)

    def run_with_hooks(
        self, ids: Sequence[int] | np.ndarray, hooks: Mapping[str, Callable]
    ) -> Array:
        """Logits of every position, with ``hooks[name](value, name)`` applied on the way."""
        return patching.run_with_hooks(self.weights, ids, hooks)


def load(
    name_or_folder: str | Path, arithmetic: str | Arithmetic = "float32", backend: str = "numpy"
) -> Model:
    """Load a fetched model by name, a folder in Hugging Face layout, or a GGUF file.

    Never uses the network. A GGUF file is converted once, into a folder beside the fetched models.

    Parameters
    ----------
    name_or_folder : str or Path
        For example ``"smollm2-135m-instruct"`` (see ``minikv fetch --list``), a ``.gguf`` file, or
        a folder with ``config.json``, ``model.safetensors`` (or shards) and ``tokenizer.json``.
    arithmetic : {"float32", "float64", "exact", "bfloat16", "float16"} or Arithmetic
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
    config = ModelConfig.from_folder(folder)
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

"""What a theorem is checked on, and where random cases come from."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from ..arithmetic import Arithmetic
from ..arrays import Array, Positions, to_numpy
from ..config import FAMILIES, FULL, SLIDING, ModelConfig, RopeScaling
from ..layers import Hook, no_hook
from ..memory import Memory
from ..model import Model, load, random_model
from ..progress import Progress, silent

Item = TypeVar("Item")
CONTEXT = 24  # tokens that a random model takes at most
SCALES = (1.0, 0.0, 0.01, 3.0, 30.0)  # of random weights; with 0, zeros and their signs show


@functools.lru_cache(maxsize=4)
def model_of(
    source: ModelConfig | str,
    seed: int,
    scale: float,
    arithmetic: str | Arithmetic,
    backend: str,
) -> Model:
    """A fetched model, or one with random weights; the last few are kept."""
    if isinstance(source, str):
        return load(source, arithmetic, backend)
    return random_model(source, seed, arithmetic, scale, backend)


@dataclass(frozen=True)
class Case:
    """One instance on which a theorem is checked; its repr reproduces it.

    Parameters
    ----------
    source : ModelConfig or str
        A shape for random weights, or the name of a fetched model.
    ids, other : tuple of int
        Two texts of the same length.
    chunks : tuple of int
        How many tokens each call takes of the first text; they add up to its length.
    seed : int
        Of permutations, schedules, droppings, and the random weights.
    scale : float
        Of the random weights.
    arithmetic : str or Arithmetic
        ``"exact"``; some controls use ``"float32"``.
    backend : str
        See `minikv.backends`.
    progress : callable
        Told how many steps of a check are done.
    """

    source: ModelConfig | str
    ids: tuple[int, ...]
    other: tuple[int, ...]
    chunks: tuple[int, ...]
    seed: int = 0
    scale: float = 1.0
    arithmetic: str | Arithmetic = "exact"
    backend: str = "numpy"
    progress: Progress = field(default=silent, repr=False, compare=False)

    @property
    def model(self) -> Model:
        """The model, built once and shared."""
        return model_of(self.source, self.seed, self.scale, self.arithmetic, self.backend)

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""
        return self.model.config

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator: the same draws for every theorem."""
        return np.random.default_rng(self.seed)

    @property
    def positions(self) -> Positions:
        """Those of the tokens of either text; ``(T,)``."""
        return np.arange(len(self.ids))

    @functools.cached_property
    def activations(self) -> dict[str, Array]:
        """Every activation of one pass over the first text."""
        return self.model.run_with_cache(self.ids)[1]

    @functools.cached_property
    def other_activations(self) -> dict[str, Array]:
        """Every activation of one pass over the other text."""
        return self.model.run_with_cache(self.other)[1]

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Logits of every position of the first text, from one pass; ``(T, V)``."""
        return to_numpy(self.model.logits(self.ids))

    def steps(self, items: Sequence[Item]) -> Iterator[Item]:
        """The items, one by one, and word of how many are done."""
        for number, item in enumerate(items):
            self.progress("", number, len(items))
            yield item

    def decoded(self, memory: Memory, hook: Hook = no_hook) -> np.ndarray:
        """Logits of every position of the first text, call by call, through `memory`."""
        rows = []
        start = 0
        for count in self.chunks:
            new = self.ids[start : start + count]
            rows.append(to_numpy(self.model.forward([new], [memory], "all", hook)))
            start += count
        return np.concatenate(rows)


# --- random cases: one distribution, drawn by NumPy (`random_case`) or Hypothesis (`proofs/`) -----


class Draws(Protocol):
    """A source of random choices, the simplest first."""

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`; a size."""

    def one_of(self, options: Sequence[Item]) -> Item:
        """One of several things."""


class Seeded:
    """Choices of NumPy's generator; `size`, up to 1, bounds every size that is drawn."""

    def __init__(self, seed: int, size: float = 1.0) -> None:
        self._rng = np.random.default_rng(seed)
        self._size = size

    def whole(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, max(low, round(high * self._size)) + 1))

    def one_of(self, options: Sequence[Item]) -> Item:
        return options[int(self._rng.integers(len(options)))]


def draw_config(
    draws: Draws,
    max_layers: int = 4,
    windowed: bool = False,
    families: Sequence[str] = tuple(FAMILIES),
) -> ModelConfig:
    """A shape: any family, one to four blocks, MHA, GQA and MQA, odd sizes, tied or not.

    With sliding windows or without (`windowed`: with), rotations scaled in either way, and a base
    of their own in sliding layers.
    """
    groups = draws.whole(1, 3)
    layers = draws.whole(1, max_layers)
    types = tuple(draws.one_of((FULL, SLIDING)) for _ in range(layers))
    if windowed and SLIDING not in types:
        types = (SLIDING, *types[1:])
    return ModelConfig(
        vocab_size=draws.whole(5, 61),
        hidden_size=draws.whole(1, 41),
        intermediate_size=draws.whole(1, 53),
        num_hidden_layers=layers,
        num_attention_heads=groups * draws.whole(1, 3),
        num_key_value_heads=groups,
        head_dim=2 * draws.one_of((1, 2, 3, 5, 8, 32)),
        max_position_embeddings=CONTEXT,
        rms_norm_eps=draws.one_of((1e-6, 1e-5, 1e-2)),
        rope_theta=draws.one_of((2.0, 1e4, 1e6)),
        rope_scaling=draws.one_of((None, RopeScaling(8.0), RopeScaling(4.0, 1.0, 4.0, 6))),
        rope_local_base_freq=draws.one_of((None, 1e2)),
        query_pre_attn_scalar=draws.one_of((None, 3.0)),
        tie_word_embeddings=draws.one_of((False, True)),
        model_type=draws.one_of(families),
        layer_types=draws.one_of(((), types)) if SLIDING in types and not windowed else types,
        sliding_window=draws.whole(1, 8),  # read where a layer slides
    )


def draw_case(
    draws: Draws, config: ModelConfig, min_tokens: int = 1, scales: Sequence[float] = ()
) -> Case:
    """Random weights of a shape, two texts, and a way to cut the first into calls."""
    length = draws.whole(min_tokens, draws.one_of((12, config.max_position_embeddings)))
    if draws.one_of((False, False, True)):
        config = replace(config, max_position_embeddings=length)  # the text fills it
    vocabulary = range(config.vocab_size)
    ids, other = (tuple(draws.one_of(vocabulary) for _ in range(length)) for _ in range(2))
    if other == ids:  # two texts that are one would show nothing
        other = ((ids[0] + 1) % config.vocab_size, *ids[1:])
    return Case(
        config,
        ids=ids,
        other=other,
        chunks=_draw_chunks(draws, length),
        seed=draws.one_of(range(2**20)),
        scale=draws.one_of(tuple(scales) or SCALES),
    )


def _draw_chunks(draws: Draws, length: int) -> tuple[int, ...]:
    """All in one call, a few calls, or a prompt and then one token at a time."""
    places = range(1, length)
    cuts: set[int] = set()
    if places:
        cuts = {draws.one_of(places) for _ in range(draws.one_of(range(7)))}
    if draws.one_of((False, True)):
        cuts |= set(range(length // 2 + 1, length))
    edges = [0, *sorted(cuts), length]
    return tuple(int(count) for count in np.diff(edges))


def random_case(seed: int, size: float = 1.0, scale: float | None = None) -> Case:
    """A random shape, two texts and a way to cut them; `size`, up to 1, bounds all of them.

    Examples
    --------
    >>> case = random_case(7)
    >>> case == random_case(7), sum(case.chunks) == len(case.ids) == len(case.other)
    (True, True)
    """
    draws = Seeded(seed, size)
    scales = () if scale is None else (scale,)
    return draw_case(draws, draw_config(draws), scales=scales)

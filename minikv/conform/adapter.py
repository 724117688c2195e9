"""What a target must have, and what it may have.

An adapter is any object with some of these, or a plain function from token ids to logits:

======================================== =======================================================
(a) ``logits(ids)``                      logits of every position, ``(T, V)``; the one that it needs
(b) ``new_cache()``                      an empty cache of one text
``step(ids, cache)``                     logits of these new tokens, ``(len(ids), V)``
``truncate(cache, length)``              forget the tokens from `length` on
``fork(cache)``                          an independent copy
``batch(texts, steps, pad, side)``       a list of ``(T, V)``: the texts in one padded batch, their
                                         last `steps` tokens one by one on a cache; `side` is
                                         ``"left"`` or ``"right"``
``request(ids)``                         ``(rows, reused)``: logits of the last positions from an
                                         engine that keeps prefixes, and how many tokens it reused
``policies``                             names of cache policies; ``new_cache(policy, budget)``
``stored(cache)``                        how many tokens' K and V are held
``kept(cache)``                          positions held, ascending, the same in every layer
``masked(ids, visible)``                 uncached logits where position t sees ``visible[t]``
(c) ``run_with_cache(ids)``              ``(logits, activations)`` by TransformerLens's names
``run_with_hooks(ids, hooks)``           logits with ``hooks[name](value, name)`` applied
``step_with_cache(ids, cache)``          `step` and its activations
(twins) ``wide()``                       the same target, its weights as they are, in float64
``nudged(seed)``                         the same target, each weight moved by half a unit
``reference()``                          a `minikv.Model` in float64 of the same weights
(facts) ``dtype``, ``vocab``             ``"float32"`` by default, or a library's own object;
                                         by default as many as logits
``max_length``, ``window``, ``sink``     None or 0 by default
``data_dependent``                       whether shapes depend on values, as in a mixture of experts
``reach``                                how far back all windows together see, L * (window - 1)
``grows``, ``rolling``                   policies that keep all tokens fed one by one; that count
                                         positions in the cache on purpose
``keeps_prefixes``                       whether `logits` may reuse what an earlier call left
``encode(text)``                         token ids of a text
======================================== =======================================================

What is missing is reported as not tested.
"""

from __future__ import annotations

import inspect
import operator
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, to_numpy
from ..errors import InputError
from .rule import UNITS

Ids = Sequence[int]

Target = Any
"""An adapter of the user's, or a function."""

Fact = Any
"""What an adapter says of itself."""

NUMBERS = ("vocab", "max_length", "window", "sink", "reach")
LISTS = ("policies", "grows", "rolling")
NOT_OWN = ("site-packages", "<frozen ", str(Path(__file__).parents[1]))
METHODS = (
    *("logits", "new_cache", "step", "truncate", "fork", "batch", "request"),
    *("stored", "kept", "masked", "encode", "wide", "nudged", "reference"),
    *("run_with_cache", "run_with_hooks", "step_with_cache"),
)


class WrongShapeError(InputError):
    """The target gave other rows than it was asked for."""


class NotTestedError(InputError):
    """An axis cannot be tested on this target; the message says why."""


def told(error: Exception) -> str:
    """What the target's code raised, in a line, and where: outside of minikv and of packages.

    Examples
    --------
    >>> told(ValueError("no such row"))
    'ValueError: no such row'
    """
    said = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(part in frame.filename for part in NOT_OWN)]
    if not own:
        return said
    return f"{said} ({Path(own[-1].filename).name}, line {own[-1].lineno})"


def is_whole(value: object) -> bool:
    """Whether a value counts something.

    Examples
    --------
    >>> is_whole(np.int64(3)), is_whole(2.5), is_whole(len)
    (True, False, False)
    """
    try:
        operator.index(value)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return False
    return True


def is_list(value: object) -> bool:
    """Whether a value is several names.

    Examples
    --------
    >>> is_list(["window"]), is_list("window"), is_list(len)
    (True, False, False)
    """
    return hasattr(value, "__iter__") and not hasattr(value, "encode")


def as_rows(value: object, rows: int | None, what: str) -> np.ndarray:
    """Logits of any library as float64 ``(rows, V)``, a leading axis of one removed."""
    if hasattr(value, "detach"):  # PyTorch's bfloat16, which NumPy does not have
        value = value.detach().double()
    array = to_numpy(value, np.float64)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2 or (rows is not None and len(array) != rows):
        expected = "(T, V)" if rows is None else f"({rows}, V)"
        raise WrongShapeError(f"{what} gave shape {array.shape}, expected {expected}")
    return array


@dataclass(frozen=True)
class Subject:
    """A target behind one face: NumPy float64 of the right shape comes out, or an error.

    Parameters
    ----------
    target : object
        An adapter, or a function from token ids to logits.

    Raises
    ------
    InputError
        If something of the target has a name of an adapter's and is something else.
    """

    target: Target
    _whole: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict, repr=False)
    _batches: dict[object, list[np.ndarray]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in METHODS:
            self._expect(name, callable(self.fact(name, callable)), "a method")
        for name in NUMBERS:
            self._expect(name, is_whole(self.fact(name, 0)), "a whole number")
        for name in LISTS:
            self._expect(name, is_list(self.fact(name, ())), "a list of names")
        self._expect("dtype", self.dtype in UNITS, f"one of {', '.join(UNITS)}")

    def _expect(self, name: str, fits: bool, expected: str) -> None:
        """Refuse what has another meaning in the target than it has in an adapter."""
        if not fits:
            value = " ".join(repr(self.fact(name)).split())
            raise InputError(
                f"{name} of the target is {value:.60}, expected {expected}: conform reads this "
                "name; rename what you have, or wrap the target in an adapter"
            )

    def can(self, *abilities: str) -> bool:
        """Whether the target has all of these."""
        return all(getattr(self.target, ability, None) is not None for ability in abilities)

    def fact(self, name: str, default: object = None) -> Fact:
        """What the target says of itself."""
        value = getattr(self.target, name, None)
        return default if value is None else value

    @cached_property
    def name(self) -> str:
        """What reports call it."""
        return str(self.fact("name", getattr(self.target, "__name__", type(self.target).__name__)))

    @cached_property
    def vocab(self) -> int:
        """Token ids are drawn below it."""
        return int(self.fact("vocab") or self.logits([0]).shape[-1])

    @cached_property
    def dtype(self) -> str:
        """Name of the arithmetic; NumPy's and PyTorch's own objects will do."""
        value = self.fact("dtype", "float32")
        return str(getattr(value, "__name__", value)).removeprefix("torch.")

    @cached_property
    def unit(self) -> float:
        """What one rounding of that arithmetic changes at most."""
        return UNITS[self.dtype]

    def logits(self, ids: Ids) -> np.ndarray:
        """Logits of every position, ``(T, V)``."""
        method = self.fact("logits", self.target)
        return as_rows(method(list(ids)), len(ids), "logits")

    def whole(self, ids: Ids) -> np.ndarray:
        """The same, run once for each text and remembered."""
        key = tuple(ids)
        if key not in self._whole:
            self._whole[key] = self.logits(key)
        return self._whole[key]

    def beginning(self, ids: Ids, length: int) -> np.ndarray:
        """The first rows of a text."""
        return self.whole(ids)[:length]

    def new_cache(self, *policy: object) -> object:
        """An empty cache; of a policy and a budget, where given."""
        return self.target.new_cache(*policy)

    def step(self, ids: Ids, cache: object) -> np.ndarray:
        """Logits of new tokens, ``(len(ids), V)``."""
        return as_rows(self.target.step(list(ids), cache), len(ids), "step")

    def chunked(self, ids: Ids, chunks: Sequence[int], cache: object = None) -> np.ndarray:
        """Logits of every position, so many tokens a call; ``(T, V)``."""
        cache = self.new_cache() if cache is None else cache
        rows = []
        start = 0
        for count in chunks:
            rows.append(self.step(ids[start : start + count], cache))
            start += count
        return np.concatenate(rows)

    def budgeted(self, ids: Ids, chunks: Sequence[int], policy: tuple[str, int]) -> np.ndarray:
        """The same on a cache of a policy and a budget."""
        return self.chunked(ids, chunks, self.new_cache(*policy))

    def batch(
        self, texts: Sequence[Ids], steps: int = 0, pad: int = 0, side: str = "left"
    ) -> list[np.ndarray]:
        """Logits of every text from one padded batch, run once and remembered."""
        key = (tuple(map(tuple, texts)), steps, pad, side)
        if key not in self._batches:
            self._batches[key] = self._batch(texts, steps, pad, side)
        return self._batches[key]

    def _batch(self, texts: Sequence[Ids], steps: int, pad: int, side: str) -> list[np.ndarray]:
        given = [list(text) for text in texts]
        extra = {} if side == "left" else {"side": side}
        found = self.target.batch(given, steps=steps, pad=pad, **extra)
        if len(found) != len(texts):
            raise WrongShapeError(f"batch gave {len(found)} texts, expected {len(texts)}")
        return [as_rows(one, len(text), "batch") for one, text in zip(found, texts, strict=True)]

    @property
    def pads_right(self) -> bool:
        """Whether `batch` can pad at the end."""
        return self.can("batch") and "side" in inspect.signature(self.target.batch).parameters

    def request(self, ids: Ids) -> tuple[np.ndarray, int]:
        """Logits of the last positions, and how many tokens were reused."""
        rows, reused = self.target.request(list(ids))
        return as_rows(rows, None, "request"), int(reused)

    def masked(self, ids: Ids, visible: np.ndarray) -> np.ndarray:
        """Uncached logits where position t sees ``visible[t]``; ``(T, V)``."""
        return as_rows(self.target.masked(list(ids), visible), len(ids), "masked")

    def raw_activations(self, ids: Ids, cache: object = None) -> dict[str, Array]:
        """Activations by TransformerLens's names, as the target gives them."""
        if cache is None:
            _, found = self.target.run_with_cache(list(ids))
        else:
            _, found = self.target.step_with_cache(list(ids), cache)
        return dict(found.items())

    def activations(self, ids: Ids, cache: object = None) -> dict[str, np.ndarray]:
        """The same in NumPy float64, rows first, without a leading axis for a batch of one."""
        return unbatched(self.raw_activations(ids, cache))

    def hooked(self, ids: Ids, hooks: Mapping[str, Callable[..., Array]]) -> np.ndarray:
        """Logits with activations replaced, ``(T, V)``."""
        return as_rows(self.target.run_with_hooks(list(ids), hooks), len(ids), "run_with_hooks")


def unbatched(activations: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Activations in NumPy float64; where streams have three axes, the first is a batch of one."""
    arrays = {name: plain(value) for name, value in activations.items()}
    batched = any(value.ndim == 3 for name, value in arrays.items() if "hook_resid" in name)
    if batched:
        return {name: value[0] for name, value in arrays.items()}
    return arrays


def plain(value: Array) -> np.ndarray:
    """An array of any library in NumPy float64."""
    if hasattr(value, "detach"):
        value = value.detach().double()
    return to_numpy(value, np.float64)

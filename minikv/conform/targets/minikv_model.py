"""minikv as a target of its own tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...arrays import Array, to_numpy
from ...caches import Cache, Evicting
from ...caches.registry import evicting
from ...errors import InputError
from ...model import Model, load

ARITHMETICS = {"float32": "float32", "float64": "float64", "exact": "float32"}


class MinikvTarget:
    """A model of minikv as an adapter.

    Parameters
    ----------
    model : Model
    again : callable, optional
        Loads the same weights in another arithmetic; without one there is no twin.
    """

    def __init__(self, model: Model, again: Callable[[str], Model] | None = None) -> None:
        config = model.config
        self.model = model
        self.again = again
        self.name = f"minikv {model.arithmetic.name}"
        self.dtype = ARITHMETICS[model.arithmetic.name]
        self.vocab = config.vocab_size
        self.max_length = config.max_position_embeddings
        self.key_norm = config.family.qk_norm
        self.policies = tuple(evicting())
        self.grows = tuple(name for name, policy in evicting().items() if policy.grows)
        self.rolling = ("streaming_llm",)  # positions within the cache, as its paper has them
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        known = [window for window in windows if window is not None]
        if known:
            self.window = known[0]
        if len(known) == len(windows):
            self.reach = sum(window - 1 for window in known)
        if again is None:
            self.wide = None  # type: ignore[assignment,method-assign]  # not here
        if model.tokenizer is None:
            self.encode = None  # type: ignore[assignment,method-assign]  # not here

    def wide(self) -> MinikvTarget:
        """In float64."""
        assert self.again is not None
        return MinikvTarget(self.again("float64"), self.again)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        assert self.model.tokenizer is not None
        return self.model.tokenizer.encode(text)

    def logits(self, ids: Sequence[int]) -> Array:
        """Logits of every position."""
        return self.model.logits(ids)

    def new_cache(self, policy: str = "full", budget: int | None = None) -> Cache:
        """A cache of a policy."""
        if budget is None:
            return self.model.new_cache(policy)
        return self.model.new_cache(policy, budget=budget)

    def step(self, ids: Sequence[int], cache: Cache) -> Array:
        """Logits of new tokens."""
        return self.model.forward([ids], [cache], "all")

    def truncate(self, cache: Cache, length: int) -> None:
        """Forget tokens."""
        cache.truncate(length)

    def fork(self, cache: Cache) -> Cache:
        """An independent copy."""
        return cache.fork()

    def stored(self, cache: Cache) -> int:
        """How many tokens' K and V are held."""
        return cache.stored

    def kept(self, cache: Evicting) -> np.ndarray:
        """Positions held, where all layers and heads hold the same."""
        rows = [layer.positions for layer in cache.rows]
        if cache.per_head or any(not np.array_equal(one, rows[0]) for one in rows):
            raise NotImplementedError("layers or heads hold different tokens")
        return rows[0][:, 0]

    def masked(self, ids: Sequence[int], visible: np.ndarray) -> Array:
        """Logits where scores of what is not visible are minus infinity."""

        def hide(scores: Array, name: str) -> Array:
            return np.where(visible, scores, -np.inf)

        layers = range(self.model.config.num_hidden_layers)
        hooks = {f"blocks.{layer}.attn.hook_attn_scores": hide for layer in layers}
        return self.model.run_with_hooks(ids, hooks)

    def batch(
        self, texts: Sequence[Sequence[int]], steps: int = 0, pad: int = 0, side: str = "left"
    ) -> list[np.ndarray]:
        """All texts in one ragged batch, which needs no padding on either side."""
        caches = [self.model.new_cache() for _ in texts]
        found: list[list[np.ndarray]] = [[] for _ in texts]
        ends = range(-steps, 0)
        calls = [[text[: len(text) - steps] for text in texts]]
        calls += [[[text[end]] for text in texts] for end in ends]
        for new in calls:
            out = to_numpy(self.model.forward(new, caches, "all"), np.float64)
            start = 0
            for rows, ids in zip(found, new, strict=True):
                rows.append(out[start : start + len(ids)])
                start += len(ids)
        return [np.concatenate(rows) for rows in found]

    def run_with_cache(self, ids: Sequence[int]) -> tuple[Array, dict[str, Array]]:
        """Logits and activations."""
        return self.model.run_with_cache(ids)

    def step_with_cache(
        self, ids: Sequence[int], cache: Cache
    ) -> tuple[Array | None, dict[str, Array]]:
        """The same of new tokens on a cache."""
        found: dict[str, Array] = {}

        def keep(name: str, value: Array) -> Array:
            found[name] = value
            return value

        return self.model.forward([ids], [cache], "all", keep), found

    def run_with_hooks(
        self, ids: Sequence[int], hooks: Mapping[str, Callable[..., Array]]
    ) -> Array:
        """Logits with activations replaced."""
        return self.model.run_with_hooks(ids, hooks)


def target(name: str, dtype: str | None = None) -> MinikvTarget:
    """A fetched model, a folder or a GGUF file; `dtype` is an arithmetic or ``numba-float32``."""
    arithmetic = dtype or "float32"
    backend = "numpy"
    if arithmetic.startswith("numba-"):
        arithmetic, backend = arithmetic.removeprefix("numba-"), "numba"
    if arithmetic not in ARITHMETICS:
        known = ", ".join(ARITHMETICS)
        raise InputError(f"dtype is {dtype!r:.40}, expected {known}, numba-float32 or numba-exact")
    made = MinikvTarget(load(name, arithmetic, backend), lambda wanted: load(name, wanted))
    made.name = f"minikv:{name}, {dtype or arithmetic}"
    return made

"""The paper's experiments, each a function that returns rows (dicts) for a table and a plot.

``compare`` (agreement with the full cache), ``memory`` (a conversation of 20 turns), ``frontier``
(bytes against recompute time) and ``latency`` (reading against recomputing). What they share is
here: texts, policies by name, one pass that fills many caches, and timing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .. import decoder
from ..caches import Cache, make_cache
from ..errors import InputError
from ..fingerprint import environment

Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done."""


def silent(label: str, share: float) -> None:
    """Show nothing."""


def read_prompts(path: str | Path | None = None) -> dict[str, str]:
    """Texts by name from a file in which a line ``=== name`` starts each; ours by default.

    Ours are eight texts written for minikv, of 250 to 400 tokens: story, code, translation,
    arithmetic, chat, facts, recipe, letter. Each breaks off where what follows needs its beginning.
    """
    source = Path(path) if path else resources.files("minikv") / "data" / "prompts.txt"
    try:
        text = source.read_text(encoding="utf-8")
    except ValueError:
        raise InputError(f"{path} is not UTF-8 text") from None
    parts = re.split(r"^=== *(.*)\n", text, flags=re.MULTILINE)
    if parts[0].strip() or len(parts) < 3:
        raise InputError(f"{path} does not begin with a line '=== name', which starts each prompt")
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def read_conversation() -> list[str]:
    """Our script of 20 user turns, about a garden."""
    text = (resources.files("minikv") / "data" / "conversation.txt").read_text(encoding="utf-8")
    return text.splitlines()


def policy_cache(name: str, weights: decoder.Weights, budget: int = 128) -> Cache:
    """An empty cache from a policy's name; ``residual`` may name its checkpoints.

    ``residual:every``, ``residual:embedding``, ``residual:tokens``, ``residual:5`` (every fifth
    layer), ``residual:0+10+20`` (a set). Any of them may end in a budget of its own: ``window@64``.
    """
    policy, _, own = name.partition("@")
    policy, _, given = policy.partition(":")
    if own and not own.isdecimal():
        raise InputError(f"policy {name!r}, expected POLICY@BUDGET, as in residual:every@128")
    if given and policy != "residual":
        raise InputError(f"policy {name!r}: only residual takes checkpoints, as in residual:every")
    parameters: dict[str, Any] = {}
    if policy not in ("full", "none"):
        parameters["budget"] = int(own or budget)
    if given:
        numbers = all(part.isdecimal() for part in given.split("+"))
        layers = [int(part) for part in given.split("+")] if numbers else [given]
        parameters["checkpoints"] = layers if len(layers) > 1 else layers[0]
    return make_cache(policy, weights, **parameters)


class _Together:
    """Stands in for several empty caches, so that one pass over a prompt fills all of them.

    Every policy sees the tokens of its first call whole and evicts after it, so each cache ends up
    as if it had been given the prompt alone: under Exact bit for bit.
    """

    def __init__(self, caches: Sequence[Cache]) -> None:
        self.weights, self.caches = caches[0].weights, caches
        self.watching = [cache for cache in caches if cache.watches]
        self.watches = bool(self.watching)

    def begin(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for cache in self.caches:
            cache.begin(ids)
        return ids, np.arange(len(ids))

    def update(self, layer: Any, positions: Any, residual: Any, k: Any, v: Any) -> Any:
        for cache in self.caches:
            cache.update(layer, positions, residual, k, v)
        return positions, k, v

    def observe(self, layer: Any, positions: Any, pattern: Any) -> None:
        for cache in self.watching:
            cache.observe(layer, positions, pattern)

    def evict(self, layer: Any) -> None:
        for cache in self.caches:
            cache.evict(layer)

    def advance(self, tokens: int) -> None:
        for cache in self.caches:
            cache.advance(tokens)


def fill(weights: decoder.Weights, caches: Sequence[Cache], ids: Any) -> np.ndarray:
    """Put one prompt into empty caches by one pass; returns the last token's logits, ``(V,)``."""
    if any(cache.seen for cache in caches):
        raise InputError("a cache has seen tokens, expected empty ones to share one pass")
    together: Any = _Together(caches)
    return np.asarray(decoder.forward(weights, [ids], [together]))[0]


def seconds(
    calls: Mapping[Any, Callable[[], Any]], repeats: int, progress: Progress = silent
) -> dict[Any, float]:
    """Median time of each call; the calls take turns, so that a slow moment hits all alike."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        for done, (name, call) in enumerate(calls.items()):
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
            progress("timing", (number + (done + 1) / len(calls)) / repeats)
    return {name: median(taken) for name, taken in times.items()}


def machine() -> str:
    """What timings were taken on, in one line."""
    on = environment()
    return (
        f"{on['cpu']}, BLAS threads: {on['threads']} ({on['blas']} {on['kernel']}), "
        f"NumPy {on['numpy']}, Python {on['python']}"
    )

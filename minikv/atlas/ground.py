"""On what the systems are demonstrated: a small random model, a text, and what they all compare."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arithmetic import Arithmetic
from ..arrays import Array, to_numpy
from ..caches import Cache, Evicting
from ..decoder import Span, block, embed
from ..layers import Hook, no_hook
from ..memory import Memory
from ..model import Model, random_model, tiny_config
from ..projection import kv_from_residual
from ..verify.memories import Watching
from ..verify.theorems.t09_bounded_loss import attention_loss, longest
from .entry import Comparison, at_most, other, same, true

TOKENS = 14
PROMPT = 10  # of these, fed in one call; the others follow one by one


def small_model(seed: int = 1, layers: int = 2, arithmetic: str | Arithmetic = "exact") -> Model:
    """A random model of four query heads on two K/V heads; made once."""
    return _made(seed, layers, arithmetic)


@functools.cache
def _made(seed: int, layers: int, arithmetic: str | Arithmetic) -> Model:
    config = tiny_config(num_hidden_layers=layers, tie_word_embeddings=False)
    return random_model(config, seed, arithmetic)


@functools.cache
def text(seed: int = 0, tokens: int = TOKENS) -> tuple[int, ...]:
    """Token ids, drawn."""
    return tuple(np.random.default_rng(seed).integers(0, 97, tokens).tolist())


def sizes(tokens: int = TOKENS) -> list[int]:
    """A prompt in one call, and then one token at a time."""
    return [PROMPT, *([1] * (tokens - PROMPT))]


def feed(
    model: Model,
    memory: Memory,
    ids: Sequence[int],
    calls: Sequence[int],
    hook: Hook = no_hook,
) -> np.ndarray:
    """Logits of every position of a text that is fed in calls of these sizes; ``(T, V)``."""
    edges = np.cumsum([0, *calls])
    rows = [
        to_numpy(model.forward([ids[start:stop]], [memory], "all", hook))
        for start, stop in itertools.pairwise(edges)
    ]
    return np.concatenate(rows)


@functools.cache
def full_logits(seed: int = 1, layers: int = 2) -> np.ndarray:
    """Those of the full cache, which are those of one pass; ``(T, V)``."""
    return to_numpy(small_model(seed, layers).logits(text()))


def decoded(memory: Memory, hook: Hook = no_hook, layers: int = 2) -> np.ndarray:
    """Logits of the text through a memory of the small model, call by call."""
    return feed(small_model(layers=layers), memory, text(), sizes(), hook)


def kv(model: Model, ids: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Keys and values of a whole text, layer by layer; each ``(T, G, d)``."""
    cache = model.new_cache("full")
    model.forward([ids], [cache], "none")
    tensors = cache.state()[0]
    layers = range(model.config.num_hidden_layers)
    return [tensors[f"k.{n}"] for n in layers], [tensors[f"v.{n}"] for n in layers]


def kv_at(
    model: Model, ids: Sequence[int], places: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Keys and values of the tokens of some places, which see each other alone; as `kv`."""
    stream = embed(model.weights, np.asarray(ids)[places])
    keys: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for layer in model.layers:
        k, v = kv_from_residual(stream, places, layer)
        keys.append(to_numpy(k))
        values.append(to_numpy(v))
        stream = block(layer, stream, places, [Span(slice(0, len(places)), places)])
    return keys, values


def last_outputs(memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the text, ``(T, V)``, and the last token's z at layer 0, ``(H, d)`` float64."""
    outputs: dict[str, Array] = {}

    def look(name: str, value: Array) -> Array:
        outputs[name] = value
        return value

    logits = decoded(memory, look)
    return logits, to_numpy(outputs["blocks.0.attn.hook_z"], dtype=np.float64)[-1]


@dataclass(frozen=True)
class Seen:
    """What a memory did with the text."""

    logits: np.ndarray  # (T, V)
    attended: np.ndarray  # (S, G): at which positions the last token attended at layer 0
    z: np.ndarray  # (H, d): what it got there
    held: int  # the most tokens that a layer held after a call


def watched(cache: Evicting) -> Seen:
    """Decode the text through a cache, and look on."""
    outputs: dict[str, Array] = {}
    held = [0]

    def look(name: str, value: Array) -> Array:
        outputs[name] = value
        if name == "hook_embed":  # a call begins: the one before is done
            held.extend(len(rows) for rows in cache.rows)
        return value

    watching = Watching(cache)
    logits = decoded(watching, look)
    attended = watching.attended[0]
    groups = small_model().config.num_key_value_heads
    z = to_numpy(outputs["blocks.0.attn.hook_z"], dtype=np.float64)[-1]
    held.extend(len(rows) for rows in cache.rows)
    return Seen(logits, np.broadcast_to(attended.T, (groups, len(attended))).T, z, max(held))


@functools.cache
def full_head_outputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Layer 0 of the full cache: the last token's weights and z, and all values; float64."""
    _, activations = small_model().run_with_cache(text())
    pattern, z, values = (
        to_numpy(activations[f"blocks.0.attn.hook_{name}"], dtype=np.float64)
        for name in ("pattern", "z", "v")
    )
    return pattern[:, -1], z[-1], values


def bounded_at_layer_0(seen: Seen) -> Comparison:
    """T9 for the last token: each head of layer 0 moves by at most 2 eps max|v|."""
    pattern, full, values = full_head_outputs()
    share = len(pattern) // values.shape[1]
    worst = 0.0
    for head, weights in enumerate(pattern):
        group = head // share
        keep = np.isin(np.arange(TOKENS), seen.attended[:, group])
        rounding = 4 * (2 * TOKENS + values.shape[2] ** 0.5 + 8) * 2.0**-24
        bound = attention_loss(weights, values[:, group], keep)[1]
        bound += rounding * longest(values[:, group])
        worst = max(worst, float(np.linalg.norm(seen.z[head] - full[head])) / bound)
    return at_most("layer 0, last token: moved / (2 eps max|v|), of the worst head", worst, 1.0)


def evicting_comparisons(policy: type[Evicting], **parameters: Any) -> list[Comparison]:
    """What every policy that evicts shows: all kept, the budget, T9, and that it loses."""
    weights = small_model().weights
    budget = TOKENS // 2
    whole = decoded(policy(weights, budget=TOKENS, **parameters))
    seen = watched(policy(weights, budget=budget, **parameters))
    return [
        same("budget for all tokens = the full cache", whole, full_logits()),
        true(
            "no layer holds more than the budget", seen.held <= budget, f"{seen.held} of {budget}"
        ),
        bounded_at_layer_0(seen),
        other("half of the budget, beside the full cache", seen.logits, full_logits()),
    ]


def positions_kept(cache: Evicting) -> list[list[list[int]]]:
    """The tokens that each layer and head keeps after the text."""
    decoded(cache)
    return [rows.positions.T.tolist() for rows in cache.rows]


def new_full(layers: int = 2) -> Cache:
    """An empty full cache of the small model."""
    return small_model(layers=layers).new_cache("full")

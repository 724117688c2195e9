"""T1 to T11: each a check that raises `Refuted`, and a control that must find a difference.

A check takes a `Case` (a model, two texts, a way to cut the first into calls) and compares bits.
A control drops the theorem's hypothesis and says whether that made a difference: a theorem whose
control never does would be vacuous.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np

from ..arithmetic import Float32
from ..arrays import to_numpy
from ..caches import Cache, Residual, Scheduled, evicting
from ..config import ModelConfig
from ..decoder import Span, block, embed, unembed
from ..layers import Hook, Layer, no_hook
from ..model import Model, load, random_model
from ..patching import kl_divergence
from ..projection import kv_from_residual


class Refuted(AssertionError):
    """A theorem does not hold for a case; the message says where."""


@functools.lru_cache(maxsize=4)
def _model(
    source: ModelConfig | str, seed: int, scale: float, arithmetic: str, backend: str
) -> Model:
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
    arithmetic : str
        ``"exact"``; controls use ``"float32"``.
    backend : str
        See `minikv.backends`.
    """

    source: ModelConfig | str
    ids: tuple[int, ...]
    other: tuple[int, ...]
    chunks: tuple[int, ...]
    seed: int = 0
    scale: float = 1.0
    arithmetic: str = "exact"
    backend: str = "numpy"

    @property
    def model(self) -> Model:
        """The model, built once and shared."""
        return _model(self.source, self.seed, self.scale, self.arithmetic, self.backend)

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator: the same draws for every theorem."""
        return np.random.default_rng(self.seed)

    @functools.cached_property
    def activations(self) -> dict[str, Any]:
        """Every activation of one pass over the first text."""
        return self.model.run_with_cache(self.ids)[1]

    @functools.cached_property
    def other_activations(self) -> dict[str, Any]:
        """Every activation of one pass over the other text."""
        return self.model.run_with_cache(self.other)[1]

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Logits of every position of the first text, from one pass."""
        return to_numpy(self.model.logits(self.ids))

    def decoded(self, cache: Cache, hook: Hook = no_hook) -> np.ndarray:
        """Logits of every position of the first text, call by call, through `cache`."""
        rows, start = [], 0
        for count in self.chunks:
            new = self.ids[start : start + count]
            rows.append(to_numpy(self.model.forward([new], [cache], "all", hook)))
            start += count
        return np.concatenate(rows)


def same_bits(got: Any, expected: Any, what: str) -> None:
    """Raise `Refuted` unless two arrays hold the same bits."""
    a, b = (np.ascontiguousarray(to_numpy(x)) for x in (got, expected))
    if a.shape != b.shape or a.dtype != b.dtype:
        raise Refuted(f"{what}: {a.dtype} {a.shape} against {b.dtype} {b.shape}")
    bits = np.dtype(f"u{a.dtype.itemsize}")
    differ = np.argwhere(a.view(bits) != b.view(bits))
    if len(differ):
        at = tuple(int(i) for i in differ[0])
        raise Refuted(
            f"{what}: {len(differ)} of {a.size} numbers differ, "
            f"first at {at}: {a[at]!r}, not {b[at]!r}"
        )


def projection(case: Case) -> None:
    """T1: any rows of the stream, in any order, project to the K/V that a decoder cached."""
    cache = case.model.new_cache("full")
    case.decoded(cache)
    cached, rng = cache.state()[0], case.rng
    for layer in case.model.layers:
        stream = case.activations[f"blocks.{layer.index}.hook_resid_pre"]
        for size in {1, len(case.ids), int(rng.integers(1, len(case.ids) + 1))}:
            at = rng.permutation(len(case.ids))[:size]
            k, v = kv_from_residual(stream[at], at, layer)
            same_bits(k, cached[f"k.{layer.index}"][at], f"K of layer {layer.index}, rows {at}")
            same_bits(v, cached[f"v.{layer.index}"][at], f"V of layer {layer.index}, rows {at}")


def markov(case: Case) -> None:
    """T2: a text whose stream at layer l is replaced by a donor's continues as the donor."""
    donor = case.logits
    for layer in case.model.layers:
        name = f"blocks.{layer.index}.hook_resid_pre"
        stream = case.activations[name]
        patched = case.model.run_with_hooks(case.other, {name: lambda value, _, s=stream: s})
        same_bits(patched, donor, f"logits after patching layer {layer.index}")
        if kl_divergence(donor, patched).any():
            raise Refuted(f"D_KL is not 0 after patching layer {layer.index}")


def last_position_patch(case: Case, layer: int) -> float:
    """D_KL (nats) at the last position where only that position of the stream is patched."""
    name = f"blocks.{layer}.hook_resid_pre"

    def patch(value: Any, _: str) -> Any:
        value = value.copy()
        value[-1] = case.activations[name][-1]
        return value

    patched = case.model.run_with_hooks(case.other, {name: patch})
    return float(kl_divergence(case.logits, patched)[-1])


def cache_free(case: Case) -> None:
    """T3: with no cache at all, each call gives the logits that the full cache gives."""
    full = case.decoded(case.model.new_cache("full"))
    same_bits(case.decoded(case.model.new_cache("none")), full, "logits without a cache")
    same_bits(case.logits, full, "logits of one pass")


def any_eviction(case: Case) -> None:
    """T4: whatever a schedule keeps as K/V and what as residuals, decoding is the same."""
    full, rng = case.decoded(case.model.new_cache("full")), case.rng
    salt = int(rng.integers(1, 2**31))

    def schedule(step: int, layer: int, position: int) -> str:
        mixed = (step * 73856093 ^ layer * 19349663 ^ position * 83492791) * salt
        return ("kv", "residual", "both")[(mixed >> 7) % 3]

    scheduled = Scheduled(case.model.weights, schedule)
    same_bits(case.decoded(scheduled), full, "logits under a random schedule")
    every = int(rng.integers(2, max(2, len(case.model.layers)) + 1))
    for checkpoints in ("embedding", "tokens", "every", every):
        budget = int(rng.integers(0, len(case.ids) + 2))
        forget = bool(rng.integers(2))
        options = {"budget": budget, "checkpoints": checkpoints, "forget": forget, "chunk": 8}
        cache = case.model.new_cache("residual", **options)
        same_bits(case.decoded(cache), full, f"logits of the residual cache, {options}")


class Unplaced(Residual):
    """T4's broken cousin: its checkpoints have lost their positions."""

    def update(
        self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any
    ) -> tuple[np.ndarray, Any, Any]:
        attended, keys, values = super().update(layer, positions, residual, k, v)
        for position in range(self._evicted):
            row = self._held[layer.index].joined(self.seen)[position : position + 1]
            keys[position : position + 1], _ = kv_from_residual(row, np.array([0]), layer)
        return attended, keys, values


def replay(case: Case) -> None:
    """T5: from the stream at layer c, all later streams, K/V and logits follow."""
    positions = np.arange(len(case.ids))
    span = Span(slice(0, len(case.ids)), positions)
    for start in case.model.layers:
        stream = case.activations[f"blocks.{start.index}.hook_resid_pre"]
        for layer in case.model.layers[start.index :]:
            same_bits(
                stream,
                case.activations[f"blocks.{layer.index}.hook_resid_pre"],
                f"stream at layer {layer.index}, replayed from {start.index}",
            )
            for got, name in zip(
                kv_from_residual(stream, positions, layer), ("rot_k", "v"), strict=True
            ):
                made = case.activations[f"blocks.{layer.index}.attn.hook_{name}"]
                what = f"{name} of layer {layer.index}, replayed from {start.index}"
                same_bits(got, made, what)
            stream = block(layer, stream, positions, [span])
        logits = unembed(case.model.weights, stream)
        same_bits(logits, case.logits, f"logits, replayed from {start.index}")
    ids = np.array(case.ids)
    same_bits(embed(case.model.weights, ids), case.activations["hook_embed"], "layer 0 from ids")


def row_locality(case: Case) -> None:
    """T6: a sequence's logits do not depend on what else is in the batch, or on its order."""
    texts = [case.ids, case.other[: case.chunks[0]], case.other, case.ids[: case.chunks[-1]]]
    alone = [to_numpy(case.model.logits(text)) for text in texts]
    for order in (range(len(texts)), case.rng.permutation(len(texts)).tolist()):
        batch = to_numpy(case.model.forward([texts[i] for i in order], logits="all"))
        expected = np.concatenate([alone[i] for i in order])
        same_bits(batch, expected, f"logits of a ragged batch in the order {list(order)}")


def order(case: Case) -> None:
    """T7: the model's own sums do not depend on the order of their terms."""
    layer, rng, arithmetic = case.model.layers[0], case.rng, case.model.arithmetic
    x = case.activations["blocks.0.ln1.hook_normalized"]
    expected, square = arithmetic.linear(x, layer.k_proj), arithmetic.mean_square(x)
    shuffle, weight = arithmetic.xp.asarray(rng.permutation(x.shape[1])), layer.k_proj
    if is_dataclass(weight):
        shuffled = replace(weight, values=weight.values[:, shuffle])
    else:
        shuffled = weight[:, shuffle]
    same_bits(arithmetic.linear(x[:, shuffle], shuffled), expected, "a product, columns permuted")
    same_bits(arithmetic.mean_square(x[:, shuffle]), square, "a mean of squares, permuted")


def causality(case: Case) -> None:
    """T8: later tokens change no earlier residual, K or V."""
    for cut in {1, case.chunks[0], len(case.ids)}:
        prefix = case.model.run_with_cache(case.ids[:cut])[1]
        for name, value in prefix.items():
            if name.endswith(("resid_pre", "resid_mid", "resid_post", "rot_k", "hook_v")):
                same_bits(value, case.activations[name][:cut], f"{name} of the first {cut} tokens")


class Unmasked(Cache):
    """T8's broken cousin: says that every key is at position 0, so that no query is masked.

    Layers with a window are left alone: it would hide such keys.
    """

    def update(
        self, layer: Any, positions: np.ndarray, residual: Any, k: Any, v: Any
    ) -> tuple[np.ndarray, Any, Any]:
        return positions * 0 if layer.window is None else positions, k, v


def unmasked_drift(case: Case) -> bool:
    """Whether, without the mask, the last token changes the first one's stream."""
    streams = []
    for text in (case.ids[:-1], case.ids):
        rows: dict[str, Any] = {}
        case.model.forward([text], [Unmasked(case.model.weights)], "none", rows.setdefault)
        streams.append(rows[f"blocks.{len(case.model.layers) - 1}.hook_resid_post"][0])
    return not np.array_equal(*streams)


def bounded_loss(case: Case) -> None:
    """T9: dropping softmax mass eps moves one attention output by at most 2 eps max|v|.

    For each eviction policy: the last token's output at layer 0, where queries, keys and values do
    not depend on what was dropped before, beside the full cache's. Either is rounded: S weights and
    their sum move it by (2 S + sqrt(d) + 8) u max|v| at most, u = 2**-24 (under `Float32` of Numba
    by its fused chains, under `Exact` by its grids, where d <= 256), and eps by the same share.

    And for each head of each layer, in float64, with what the policies kept and random droppings;
    1e-12 * max|v| allows for the rounding of two quotients of two sums, by Higham's bound at most
    4 gamma_{S+2} <= 1e-12 for up to 2,200 keys.
    """
    tokens, kept = len(case.ids), []
    _, full = _last_at_layer_0(case, case.model.new_cache("full"))
    for budget in {1, max(1, tokens // 2)}:
        for cache in _evicting(case, budget):
            at, z = _last_at_layer_0(case, cache)
            seen = [np.isin(np.arange(tokens), group) for group in at.T]
            kept += seen
            for head, (weights, v) in enumerate(_heads(case, 0)):
                keep = seen[head * len(seen) // len(z)]
                moved = float(np.linalg.norm(z[head] - full[head]))
                rounding = 4 * (2 * tokens + math.sqrt(v.shape[1]) + 8) * 2.0**-24
                bound = attention_loss(weights, v, keep)[1] + rounding * _largest(v)
                if not moved <= bound:  # NaN is no bounded loss
                    raise Refuted(
                        f"{cache.policy}, budget {budget}: head {head} of layer 0 moved "
                        f"{moved}, bound {bound}"
                    )
    kept += [case.rng.random(tokens) < share for share in (0.2, 0.5, 0.9)]
    for layer in case.model.layers:
        for head, (weights, v) in enumerate(_heads(case, layer.index)):
            for keep in kept:
                loss, bound = attention_loss(weights, v, keep)
                if not loss <= bound:
                    raise Refuted(f"layer {layer.index} head {head}: moved {loss}, bound {bound}")


def attention_loss(weights: np.ndarray, v: np.ndarray, keep: np.ndarray) -> tuple[float, float]:
    """How far dropping ``~keep`` moves ``weights @ v``, and T9's bound; ``(S,), (S, d), (S,)``."""
    eps = float(weights[~keep].sum() / weights.sum())
    bound = (2 * eps + 1e-12) * _largest(v)
    if not weights[keep].sum() > 0:
        return 0.0, bound  # everything dropped: nothing left to renormalise
    exact = weights @ v / weights.sum()
    dropped = weights[keep] @ v[keep] / weights[keep].sum()
    return float(np.linalg.norm(exact - dropped)), bound


def _largest(v: np.ndarray) -> float:
    return float(np.sqrt((v * v).sum(axis=1)).max())


def _heads(case: Case, layer: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each head, the weights of the last token and the values, in float64."""
    pattern, values = (
        to_numpy(case.activations[f"blocks.{layer}.attn.hook_{name}"], dtype=np.float64)
        for name in ("pattern", "v")
    )
    share = pattern.shape[0] // values.shape[1]
    for head, weights in enumerate(pattern[:, -1]):
        yield weights, values[:, head // share]


def _evicting(case: Case, budget: int) -> Iterator[Cache]:
    """A cache of each eviction policy; positions stay those in the text, as T9 supposes."""
    sinks = {"streaming_llm": {"sinks": budget // 2, "reposition": False}}
    for name in evicting():
        yield case.model.new_cache(name, budget=budget, **sinks.get(name, {}))


def _last_at_layer_0(case: Case, cache: Cache) -> tuple[np.ndarray, np.ndarray]:
    """At which positions the last token attends through `cache`, ``(S, G)``; its z, ``(H, d)``."""
    seen: dict[str, Any] = {}
    update, groups = cache.update, case.model.config.num_key_value_heads

    def watch(layer: Layer, *rows: Any) -> Any:
        attended = update(layer, *rows)
        if layer.index == 0:
            seen["at"] = attended[0]
        return attended

    def look(name: str, value: Any) -> Any:
        seen[name] = value
        return value

    cache.update = watch  # type: ignore[assignment,method-assign]  # of this one cache
    case.decoded(cache, look)
    z = to_numpy(seen["blocks.0.attn.hook_z"], dtype=np.float64)[-1]
    return np.broadcast_to(seen["at"].T, (groups, len(seen["at"]))).T, z


def some_policy_loses(case: Case) -> bool:
    """Whether every eviction policy with half the budget changes the logits of this case."""
    full = case.decoded(case.model.new_cache("full"))
    caches = _evicting(case, max(1, len(case.ids) // 2))
    return not any(np.array_equal(case.decoded(cache), full) for cache in caches)


def prefix(case: Case) -> None:
    """T10: K/V of layer 0 depend on the token and its position alone."""
    layer = case.model.layers[0]
    swapped = (*case.other[:-1], case.ids[-1])  # another prefix, the same last token
    k, v = _kv_rows(case, case.ids, 0), _kv_rows(case, swapped, 0)
    for a, b, name in zip(k, v, "KV", strict=True):
        same_bits(b[-1], a[-1], f"{name} of layer 0 at the last position after another prefix")
    alone = embed(case.model.weights, np.array(case.ids[-1:]))
    at = np.array([len(case.ids) - 1])
    for got, rows, name in zip(kv_from_residual(alone, at, layer), k, "KV", strict=True):
        same_bits(got[0], rows[-1], f"{name} of layer 0 from the token alone")


def prefix_matters(case: Case) -> bool:
    """Whether K of layer 1 at the last position changes with the prefix."""
    swapped = (*case.other[:-1], case.ids[-1])
    k, other = _kv_rows(case, case.ids, 1)[0], _kv_rows(case, swapped, 1)[0]
    return not np.array_equal(k[-1], other[-1])


def _kv_rows(case: Case, ids: Sequence[int], layer: int) -> tuple[Any, Any]:
    cache = case.model.new_cache("full")
    case.model.forward([ids], [cache], "none")
    tensors = cache.state()[0]
    return tensors[f"k.{layer}"], tensors[f"v.{layer}"]


def receptive_field(case: Case) -> None:
    """T11: through sliding windows a stream depends on no row further back than its reach.

    From each layer on, rows before a cut are replaced by those of another text. Rows at least the
    reach behind the cut must stay as they were, in every stream up to a layer that sees everything.
    """
    for start, cut in enumerate(_cuts(case)):
        for stop, stream in _disturbed(case, start, cut):
            first = cut + (case.model.config.reach(start, stop) or 0)
            same_bits(
                stream[first:],
                case.activations[_STREAM.format(stop - 1)][first:],
                f"stream after layer {stop - 1} from {first} on, rows of layer {start} "
                f"before {cut} replaced",
            )


def reach_is_attained(case: Case) -> bool:
    """Whether a row exactly the reach behind the last replaced one differs, in every layer."""
    found = []
    for start, cut in enumerate(_cuts(case)):
        for stop, stream in _disturbed(case, start, cut):
            at = cut - 1 + (case.model.config.reach(start, stop) or 0)
            if at < len(case.ids) and stop == start + 1:
                truth = case.activations[_STREAM.format(start)]
                found.append(not np.array_equal(stream[at], truth[at]))
    return bool(found) and all(found)


_STREAM = "blocks.{}.hook_resid_post"


def _cuts(case: Case) -> list[int]:
    """For each layer, before which position its stream is replaced."""
    longest = max(1, len(case.ids) // 3)
    return case.rng.integers(1, longest + 1, len(case.model.layers)).tolist()


def _disturbed(case: Case, start: int, cut: int) -> Iterator[tuple[int, Any]]:
    """The streams above layer `start`, its rows before `cut` another text's, while they reach."""
    config, positions = case.model.config, np.arange(len(case.ids))
    name = f"blocks.{start}.hook_resid_pre"
    parts = [case.other_activations[name][:cut], case.activations[name][cut:]]
    stream = case.model.arithmetic.xp.concat(parts, axis=0)
    for layer in case.model.layers[start:]:
        reach = config.reach(start, layer.index + 1)
        if reach is None or cut + reach > len(positions):
            return
        stream = block(layer, stream, positions, [Span(slice(0, len(positions)), positions)])
        yield layer.index + 1, stream


def refutes_float32(check: Callable[[Any], None]) -> Callable[[Any], bool]:
    """The control of a theorem that float32 does not obey: its own check, on `Float32`."""

    def control(case: Any) -> bool:
        try:
            check(replace(case, arithmetic=Float32.name))
        except Refuted:
            return True
        return False

    return control


def _unplaced(case: Case) -> bool:
    cache = Unplaced(case.model.weights, budget=0, checkpoints="every")
    return not np.array_equal(case.decoded(cache), case.logits)


def _replay_of_another(case: Case) -> bool:
    """Whether replaying with one position of another text's stream changes the logits."""
    last, positions = case.model.layers[-1], np.arange(len(case.ids))
    differs = np.flatnonzero(np.not_equal(case.ids[:-1], case.other[:-1]))
    at = differs[-1] if len(differs) else 0  # near the end: a window may hide the others
    stream = case.activations[f"blocks.{last.index}.hook_resid_pre"].copy()
    stream[at] = case.other_activations[f"blocks.{last.index}.hook_resid_pre"][at]
    out = block(last, stream, positions, [Span(slice(0, len(case.ids)), positions)])
    return not np.array_equal(out[-1], case.activations[f"blocks.{last.index}.hook_resid_post"][-1])


@dataclass(frozen=True)
class Theorem:
    """A row of the table: what is claimed, how it is checked, what refutes its negation."""

    id: str
    name: str
    statement: str
    check: Callable[[Any], None] = field(repr=False)  # of a Case, or of what `shapes` has for one
    control: Callable[[Any], bool] = field(repr=False)
    dropped: str  # what the control drops
    windowed: bool = False  # whether it is about sliding windows alone

    def applies(self, case: Case) -> bool:
        """Whether it says anything about a case: windows are in it, shorter than the text."""
        config = case.model.config
        windows = map(config.window, range(config.num_hidden_layers))
        return not self.windowed or any(w is not None and w < len(case.ids) for w in windows)


THEOREMS: dict[str, Theorem] = {
    theorem.id: theorem
    for theorem in (
        Theorem(
            "T1",
            "projection",
            "K and V are projections of the residual stream",
            projection,
            refutes_float32(projection),
            "exact sums",
        ),
        Theorem(
            "T2",
            "Markov",
            "the whole stream at any layer determines the outputs",
            markov,
            lambda case: last_position_patch(case, len(case.model.layers) // 2) > 1e-3,
            "all positions but the last",
        ),
        Theorem(
            "T3",
            "cache-free",
            "decoding without a cache gives the same logits",
            cache_free,
            refutes_float32(cache_free),
            "exact sums",
        ),
        Theorem(
            "T4",
            "any eviction",
            "any schedule of K/V and residuals decodes the same",
            any_eviction,
            _unplaced,
            "the checkpoints' positions",
        ),
        Theorem(
            "T5",
            "replay",
            "from a checkpoint at layer c everything above follows",
            replay,
            _replay_of_another,
            "one position of the checkpoint",
        ),
        Theorem(
            "T6",
            "row locality",
            "a row does not depend on which rows share the call",
            row_locality,
            refutes_float32(row_locality),
            "exact sums",
        ),
        Theorem(
            "T7",
            "order",
            "sums do not depend on the order of their terms",
            order,
            refutes_float32(order),
            "exact sums",
        ),
        Theorem(
            "T8",
            "causality",
            "a new token changes no earlier residual, K or V",
            causality,
            unmasked_drift,
            "the causal mask",
        ),
        Theorem(
            "T9",
            "bounded loss",
            "dropping mass eps moves an output by <= 2 eps max|v|",
            bounded_loss,
            some_policy_loses,
            "half of the budget",
        ),
        Theorem(
            "T10",
            "prefix",
            "K/V of layer 0 depend on token and position alone",
            prefix,
            lambda case: len(case.model.layers) > 1 and prefix_matters(case),
            "layer 0 (taking layer 1 instead)",
        ),
        Theorem(
            "T11",
            "receptive field",
            "through windows a stream sees no further than its reach",
            receptive_field,
            reach_is_attained,
            "one position of the reach",
            windowed=True,
        ),
    )
}

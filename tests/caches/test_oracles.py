"""The eviction baselines against loops over tokens and heads, written from their papers alone.

With sliding windows too, which the papers do not have: a key that a window hides weighs 0.

`Oracle` is a decoder in float64 that shares no code with minikv: it keeps every key (before RoPE)
and value that it ever made, and a list, for each layer and K/V head, of the tokens that a policy
still has. The policies are a few lines on dictionaries of attention weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from feeding import EXACT, registered, settings_of
from hypothesis import event, given
from hypothesis import strategies as st

import minikv
from minikv.arithmetic import Arithmetic
from minikv.arrays import Array
from minikv.caches import Evicting, evicting
from minikv.config import FULL, SLIDING
from minikv.layers import Hook, no_hook

Kept = list[list[int]]  # tokens kept, for each K/V head


@dataclass(frozen=True)
class Layer:
    """What a rule is given: one layer after the attention of a call."""

    index: int
    tokens: Kept  # there, for each K/V head
    weights: list[dict[int, dict[int, float]]]  # of each query head: query -> key token -> weight
    keys: list[dict[int, list[float]]]  # of each K/V head: token -> key as attention read it
    values: list[dict[int, list[float]]]  # of each K/V head: token -> value

    def heads(self, group: int) -> list[dict[int, dict[int, float]]]:
        """The weights of the query heads that share a K/V head."""
        share = len(self.weights) // len(self.tokens)
        return self.weights[group * share : (group + 1) * share]


Rule = Callable[[Layer], Kept]  # which tokens stay


class Oracle:
    """One sequence decoded by loops, with the tokens that `rule` keeps."""

    def __init__(self, tensors, config, rule: Rule, reposition: bool = False) -> None:
        self.tensors = {name: t.astype(np.float64) for name, t in tensors.items()}
        self.config, self.rule, self.reposition = config, rule, reposition
        self.kept = [
            [[] for _ in range(config.num_key_value_heads)] for _ in range(config.num_hidden_layers)
        ]
        self.made = {}  # (layer, token) -> keys before RoPE, values; (G, d) each
        self.seen = 0

    def feed(self, ids: list[int]) -> np.ndarray:
        """Logits of the new tokens, ``(T, V)``."""
        stream = [self.tensors["model.embed_tokens.weight"][token] for token in ids]
        for layer in range(self.config.num_hidden_layers):
            stream = self.block(layer, stream)
        self.seen += len(ids)
        head = self.tensors.get("lm_head.weight", self.tensors["model.embed_tokens.weight"])
        return np.array([head @ self.norm(x, "model.norm") for x in stream])

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = math.fsum(v * v for v in x) / len(x)
        return x / math.sqrt(mean + self.config.rms_norm_eps) * self.tensors[name + ".weight"]

    def rotated(self, x: np.ndarray, position: int) -> np.ndarray:
        half, theta = len(x) // 2, self.config.rope_theta
        out = np.empty(2 * half)
        for i in range(half):  # the angle is a float32 product, as in transformers
            angle = float(np.float32(position) * np.float32(theta ** (-i / half)))
            c, s = math.cos(angle), math.sin(angle)
            out[i], out[half + i] = x[i] * c - x[half + i] * s, x[half + i] * c + x[i] * s
        return out

    def block(self, layer: int, stream: list[np.ndarray]) -> list[np.ndarray]:
        config = self.config
        prefix = f"model.layers.{layer}."
        heads, groups, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        share = heads // groups
        weight = {
            name: self.tensors[f"{prefix}{name}_proj.weight"]
            for name in (
                "self_attn.q",
                "self_attn.k",
                "self_attn.v",
                "self_attn.o",
                "mlp.gate",
                "mlp.up",
                "mlp.down",
            )
        }
        new = range(self.seen, self.seen + len(stream))
        normed = {
            t: self.norm(x, prefix + "input_layernorm") for t, x in zip(new, stream, strict=True)
        }
        for t in new:
            k = weight["self_attn.k"] @ normed[t]
            v = weight["self_attn.v"] @ normed[t]
            self.made[layer, t] = (k.reshape(groups, d), v.reshape(groups, d))
        there = [list(kept) + list(new) for kept in self.kept[layer]]

        seen_by: list[dict[int, dict[int, float]]] = [{} for _ in range(heads)]
        read: list[dict[int, list[float]]] = [{} for _ in range(groups)]
        mixed = {t: np.zeros((heads, d)) for t in new}
        for h in range(heads):
            tokens = there[h // share]
            place = {t: i if self.reposition else t for i, t in enumerate(tokens)}
            key = {s: self.rotated(self.made[layer, s][0][h // share], place[s]) for s in tokens}
            read[h // share] = {s: k.tolist() for s, k in key.items()}
            for t in new:
                q = (weight["self_attn.q"] @ normed[t]).reshape(heads, d)[h]
                q = self.rotated(q, place[t])
                reach = config.window(layer) or math.inf
                visible = [s for s in tokens if s <= t and place[s] > place[t] - reach]
                score = {s: math.fsum(q * key[s]) / math.sqrt(d) for s in visible}
                top = max(score.values())
                total = math.fsum(math.exp(score[s] - top) for s in visible)
                weight_of = {s: math.exp(score[s] - top) / total for s in visible}
                seen_by[h][t] = {s: weight_of.get(s, 0.0) for s in tokens if s <= t}
                for s in visible:
                    mixed[t][h] += seen_by[h][t][s] * self.made[layer, s][1][h // share]
        values = [
            {s: self.made[layer, s][1][g].tolist() for s in tokens}
            for g, tokens in enumerate(there)
        ]
        self.kept[layer] = self.rule(Layer(layer, there, seen_by, read, values))

        out = []
        for t, x in zip(new, stream, strict=True):
            x = x + weight["self_attn.o"] @ mixed[t].reshape(-1)
            y = self.norm(x, prefix + "post_attention_layernorm")
            gate = weight["mlp.gate"] @ y
            out.append(
                x + weight["mlp.down"] @ (gate / (1 + np.exp(-gate)) * (weight["mlp.up"] @ y))
            )
        return out


class NearTie(Exception):
    """Rounding may decide which of two tokens stays."""


def best(
    count: int, tokens: list[int], score: dict[int, float], repeats: bool = False
) -> list[int]:
    """The `count` tokens of highest score, newer ones on a tie; near ties are not tested.

    `repeats` says that a token which comes twice in the text has one score twice, as where keys or
    values alone are scored. A product in floating point may tell the two apart, so that their tie
    is a near one.
    """
    order = sorted(tokens, key=lambda t: (score[t], t), reverse=True)
    if 0 < count < len(order):
        last = score[order[count - 1]]
        first = score[order[count]]
        near = last - first < 1e-9 * abs(last)  # rounding is below 1e-12 of a score
        if near and (repeats or last != first):
            raise NearTie
    return order[:count]


def window(budget: int) -> Rule:
    return lambda layer: [tokens[-budget:] for tokens in layer.tokens]


def streaming_llm(budget: int, sinks: int, reposition: bool) -> Rule:
    def kept(tokens: list[int]) -> list[int]:
        if len(tokens) <= budget:
            return tokens
        newest = tokens[-(budget - sinks) :]
        return [t for t in tokens if t in range(sinks) or t in newest]

    return lambda layer: [kept(tokens) for tokens in layer.tokens]


def h2o(budget: int, recent: int) -> Rule:
    received: dict[tuple[int, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def rule(layer: Layer) -> Kept:
        kept = []
        for g, tokens in enumerate(layer.tokens):
            score = received[layer.index, g]
            for head in layer.heads(g):
                for row in head.values():
                    for token, weight in row.items():
                        score[token] += weight
            if len(tokens) > budget:
                newest = tokens[len(tokens) - recent :]
                older = tokens[: len(tokens) - recent]
                tokens = sorted(best(budget - recent, older, score) + newest)
            kept.append(tokens)
        return kept

    return rule


def snapkv(budget: int, window: int, kernel: int) -> Rule:
    reach = kernel // 2

    def compressed(tokens: list[int], heads: list[dict[int, dict[int, float]]]) -> list[int]:
        watching = tokens[-window:]
        prefix = tokens[: len(tokens) - window]
        votes = {
            s: math.fsum(head[t][s] for t in watching for head in heads) / len(heads)
            for s in prefix
        }
        pooled = {s: max(votes[n] for n in prefix if abs(n - s) <= reach) for s in prefix}
        return sorted(best(budget - window, prefix, pooled) + watching)

    def rule(layer: Layer) -> Kept:
        kept = []
        for g, tokens in enumerate(layer.tokens):
            is_prompt = len(layer.weights[0]) == len(tokens)
            if is_prompt and len(tokens) > budget:
                tokens = compressed(tokens, layer.heads(g))
            kept.append(tokens)
        return kept

    return rule


def tova(budget: int) -> Rule:
    def rule(layer: Layer) -> Kept:
        tokens = layer.tokens[0]
        if len(tokens) <= budget:
            return layer.tokens
        newest = [head[tokens[-1]] for head in layer.weights]
        mean = {s: math.fsum(head[s] for head in newest) / len(newest) for s in tokens}
        return [sorted(best(budget, tokens, mean))] * len(layer.tokens)

    return rule


ORACLES: dict[str, Callable[..., Rule]] = {
    "window": window,
    "streaming_llm": streaming_llm,
    "h2o": h2o,
    "snapkv": snapkv,
    "tova": tova,
}
"""The rule of each eviction policy, by its name; it takes the policy's parameters."""


@dataclass(frozen=True)
class Text:
    """A random tiny model, a text and the calls in which it is fed."""

    config: minikv.ModelConfig
    seed: int
    scale: float
    calls: list[list[int]]
    query_block: int = 128  # queries that minikv's attention takes at once
    hook: Hook = no_hook


@st.composite
def texts(draw: st.DrawFn) -> Text:
    shapes = [(2, 2, 2), (1, 3, 2), (3, 1, 1), (2, 1, 3), (1, 4, 2), (2, 5, 1)]
    groups, share, layers = draw(st.sampled_from(shapes))
    windows: dict[str, Any] = {}
    if draw(st.booleans()):
        kinds = st.lists(st.sampled_from([SLIDING, FULL]), min_size=layers, max_size=layers)
        windows = {
            "model_type": "mistral",
            "sliding_window": draw(st.integers(1, 9)),
            "layer_types": tuple(draw(kinds)),
        }
    config = minikv.tiny_config(
        **windows,
        num_hidden_layers=layers,
        num_attention_heads=groups * share,
        num_key_value_heads=groups,
        # Frequencies 1, 1/8 and 1/64, whose products with a position are exact in float32, so
        # that turning a key back loses nothing to the rounding of an angle.
        rope_theta=512.0,
        tie_word_embeddings=draw(st.booleans()),
    )
    sizes = [draw(st.integers(1, 18)), *draw(st.lists(st.integers(1, 6), max_size=2))]
    sizes += [1] * draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    calls = [rng.integers(0, config.vocab_size, size).tolist() for size in sizes]
    return Text(
        config,
        draw(st.integers(0, 2**20)),
        draw(st.sampled_from([0.7, 1.5, 3.0])),
        calls,
        draw(st.sampled_from([1, 2, 3, 128])),
        draw(st.sampled_from([no_hook, looking])),
    )


def looking(name: str, value: Array) -> Array:
    """A hook that changes nothing: under it, attention takes all queries at once."""
    return value


def agree(text: Text, rule: Rule, policy: str, **parameters) -> str:
    """After each call, the same tokens at each layer and head; the same logits.

    Returns what happened, for Hypothesis' statistics.

    Both sides compute in float64. One block is a chain of sums of n < 200 terms, each exact to
    gamma_n = n u of its absolute terms, u = 2**-53. At most 3 blocks, through which a change
    grows by less than 1e3 (25 was measured), put the logits within 3 * 1e3 * 200 u < 1e-10 of
    their largest. Keeping a wrong token moves them by 4e-4 and up (measured).
    """
    tensors = minikv.random_tensors(text.config, text.seed, text.scale)
    weights = minikv.build(text.config, tensors, "float64")
    cache = minikv.Model(weights).new_cache(policy, **parameters)
    oracle = Oracle(tensors, text.config, rule, getattr(cache, "reposition", False))
    for ids in text.calls:
        with patch.object(Arithmetic, "query_block", text.query_block):
            got = np.asarray(minikv.forward(weights, [ids], [cache], "all", text.hook))
        try:
            expected = oracle.feed(ids)
        except NearTie:
            return "near tie"
        state = cache.state()[0]
        for layer, kept in enumerate(oracle.kept):
            assert state[f"positions.{layer}"].T.tolist() == kept
        assert np.max(np.abs(got - expected)) <= 1e-10 * np.max(np.abs(expected))
    return "something evicted" if cache.seen > cache.stored else "all kept"


def settled(policy: type[Evicting], parameters: dict) -> dict:
    """All parameters, those too that the policy settles by itself."""
    return policy(EXACT.weights, **parameters).parameters


@pytest.mark.parametrize("name", evicting())
@given(text=texts(), budget=st.integers(1, 12), data=st.data())
def test_a_policy_is_its_oracle(name, text, budget, data):
    policy = evicting()[name]
    parameters = settled(policy, data.draw(settings_of(policy, budget)))
    event(agree(text, ORACLES[name](**parameters), name, **parameters))


LONG = {
    "window": [{}],
    "streaming_llm": [{"sinks": 5}],
    "h2o": [{"recent": 20}],
    "snapkv": [{"window": 40, "kernel": 15}, {"window": 40, "kernel": 1}, {"window": 1}],
    "tova": [{}],
}


@pytest.mark.parametrize(
    ("name", "given_parameters"),
    [(name, parameters) for name in evicting() for parameters in LONG.get(name, [{}])],
)
@pytest.mark.parametrize("sliding", [None, 90])
def test_a_policy_is_its_oracle_on_a_text_of_many_blocks_of_queries(
    name, given_parameters, sliding
):
    """A prompt of seven blocks, a call of two, and single tokens."""
    windows: dict[str, Any] = {}
    if sliding:
        windows = {"model_type": "mistral", "sliding_window": sliding, "layer_types": (SLIDING,)}
    config = minikv.tiny_config(
        **windows,
        num_hidden_layers=1,
        num_key_value_heads=1,
        num_attention_heads=2,
        rope_theta=512.0,
        max_position_embeddings=300,
    )
    rng = np.random.default_rng(7)
    calls = [rng.integers(0, 97, size).tolist() for size in (200, 40, 1, 1)]
    text = Text(config, 3, 1.5, calls, query_block=32)
    parameters = settled(evicting()[name], {"budget": 70} | given_parameters)
    assert agree(text, ORACLES[name](**parameters), name, **parameters) == "something evicted"


WRONG = {
    "window": window(5),
    "streaming_llm": streaming_llm(4, 2, False),
    "h2o": h2o(4, 1),
    "snapkv": snapkv(4, 3, 7),
    "tova": h2o(4, 2),
}
"""For each policy of budget 4, the rule of a neighbour."""


@pytest.mark.parametrize("name", WRONG)
def test_an_oracle_with_another_rule_disagrees(name):
    """The comparison can fail."""
    rng = np.random.default_rng(0)
    calls = [rng.integers(0, 97, 9).tolist(), *([int(t)] for t in rng.integers(0, 97, 4))]
    text = Text(minikv.tiny_config(rope_theta=512.0), 1, 1.5, calls)
    parameters = {"streaming_llm": {"sinks": 1, "reposition": False}, "snapkv": {"window": 2}}
    with pytest.raises(AssertionError):
        agree(text, WRONG[name], name, budget=4, **parameters.get(name, {}))


def test_every_eviction_policy_has_an_oracle():
    assert ORACLES.keys() == WRONG.keys() == evicting().keys()


def test_an_oracle_is_given_the_keys_and_values_that_the_policy_is_given():
    """A rule that scores keys and values, on both sides: the smallest |k| + 2 |v| go."""
    ids = np.random.default_rng(3).permutation(97).tolist()  # no token comes twice
    calls = [ids[:9], *([token] for token in ids[9:13])]
    text = Text(minikv.tiny_config(rope_theta=512.0), 1, 1.5, calls)

    def oracle(layer: Layer) -> Kept:
        kept = []
        for tokens, keys, values in zip(layer.tokens, layer.keys, layer.values, strict=True):
            norm = {t: math.hypot(*keys[t]) + 2 * math.hypot(*values[t]) for t in tokens}
            kept.append(sorted(best(4, tokens, norm, repeats=True)))
        return kept

    with registered(Normed):
        assert agree(text, oracle, "normed", budget=4) == "something evicted"
        with pytest.raises(AssertionError):
            agree(text, window(4), "normed", budget=4)


class Normed(Evicting):
    policy = "normed"
    per_head = True

    def priority(self, rows):
        return np.linalg.norm(rows.keys, axis=-1) + 2 * np.linalg.norm(rows.values, axis=-1)

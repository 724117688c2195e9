"""The eviction baselines against loops over tokens and heads, written from their papers alone.

`Oracle` is a decoder in float64 that shares no code with minikv: it keeps every key (before RoPE)
and value that it ever made, and a list, for each layer and K/V head, of the tokens that a policy
still has. The policies are a few lines on dictionaries of attention weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

import minikv

Kept = list[list[int]]  # tokens kept, for each K/V head
Weights = list[
    dict[int, dict[int, float]]
]  # for each query head: query token -> key token -> weight
Rule = Callable[[int, Kept, Weights], Kept]  # layer, tokens there, attention weights -> tokens kept


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
        config, at = self.config, f"model.layers.{layer}."
        heads, groups, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        share = heads // groups
        weight = {
            name: self.tensors[f"{at}{name}_proj.weight"]
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
        normed = {t: self.norm(x, at + "input_layernorm") for t, x in zip(new, stream, strict=True)}
        for t in new:
            k, v = weight["self_attn.k"] @ normed[t], weight["self_attn.v"] @ normed[t]
            self.made[layer, t] = (k.reshape(groups, d), v.reshape(groups, d))
        there = [list(kept) + list(new) for kept in self.kept[layer]]

        seen_by: Weights = [{} for _ in range(heads)]
        mixed = {t: np.zeros((heads, d)) for t in new}
        for h in range(heads):
            tokens = there[h // share]
            place = {t: i if self.reposition else t for i, t in enumerate(tokens)}
            for t in new:
                q = (weight["self_attn.q"] @ normed[t]).reshape(heads, d)[h]
                q, visible = self.rotated(q, place[t]), [s for s in tokens if s <= t]
                score = {}
                for s in visible:
                    k = self.rotated(self.made[layer, s][0][h // share], place[s])
                    score[s] = math.fsum(q * k) / math.sqrt(d)
                top = max(score.values())
                total = math.fsum(math.exp(score[s] - top) for s in visible)
                seen_by[h][t] = {s: math.exp(score[s] - top) / total for s in visible}
                for s in visible:
                    mixed[t][h] += seen_by[h][t][s] * self.made[layer, s][1][h // share]
        self.kept[layer] = self.rule(layer, there, seen_by)

        out = []
        for t, x in zip(new, stream, strict=True):
            x = x + weight["self_attn.o"] @ mixed[t].reshape(-1)
            y = self.norm(x, at + "post_attention_layernorm")
            gate = weight["mlp.gate"] @ y
            out.append(
                x + weight["mlp.down"] @ (gate / (1 + np.exp(-gate)) * (weight["mlp.up"] @ y))
            )
        return out


class NearTie(Exception):
    """Rounding may decide which of two tokens stays."""


def best(count: int, tokens: list[int], score: dict[int, float]) -> list[int]:
    """The `count` tokens of highest score, newer ones on a tie; near ties are not tested."""
    order = sorted(tokens, key=lambda t: (score[t], t), reverse=True)
    if 0 < count < len(order):
        last, first = score[order[count - 1]], score[order[count]]
        if last != first and last - first < 1e-9 * last:  # rounding is below 1e-12 of a score
            raise NearTie
    return order[:count]


def window(budget: int) -> Rule:
    return lambda layer, there, weights: [tokens[-budget:] for tokens in there]


def streaming_llm(budget: int, sinks: int) -> Rule:
    def rule(layer: int, there: Kept, weights: Weights) -> Kept:
        first = range(sinks)
        return [
            tokens
            if len(tokens) <= budget
            else [t for t in tokens if t in first or t in tokens[-(budget - sinks) :]]
            for tokens in there
        ]

    return rule


def h2o(budget: int, recent: int) -> Rule:
    received: dict[tuple[int, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def rule(layer: int, there: Kept, weights: Weights) -> Kept:
        kept = []
        for g, tokens in enumerate(there):
            share = len(weights) // len(there)
            for head in weights[g * share : (g + 1) * share]:
                for row in head.values():
                    for token, w in row.items():
                        received[layer, g][token] += w
            if len(tokens) > budget:
                newest = tokens[len(tokens) - recent :]
                older = tokens[: len(tokens) - recent]
                tokens = sorted(best(budget - recent, older, received[layer, g]) + newest)
            kept.append(tokens)
        return kept

    return rule


def snapkv(budget: int, observed: int, kernel: int) -> Rule:
    def rule(layer: int, there: Kept, weights: Weights) -> Kept:
        kept = []
        for g, tokens in enumerate(there):
            is_prompt = len(weights[0]) == len(tokens)
            if is_prompt and len(tokens) > budget:
                share = len(weights) // len(there)
                watching, prefix = tokens[-observed:], tokens[: len(tokens) - observed]
                votes = {
                    s: math.fsum(
                        weights[h][t][s]
                        for t in watching
                        for h in range(g * share, (g + 1) * share)
                    )
                    / share
                    for s in prefix
                }
                reach = kernel // 2
                pooled = {s: max(votes[n] for n in prefix if abs(n - s) <= reach) for s in prefix}
                tokens = sorted(best(budget - observed, prefix, pooled) + watching)
            kept.append(tokens)
        return kept

    return rule


def tova(budget: int) -> Rule:
    def rule(layer: int, there: Kept, weights: Weights) -> Kept:
        tokens, last = there[0], there[0][-1]
        if len(tokens) <= budget:
            return there
        mean = {s: math.fsum(head[last][s] for head in weights) / len(weights) for s in tokens}
        return [sorted(best(budget, tokens, mean))] * len(there)

    return rule


@dataclass(frozen=True)
class Text:
    """A random tiny model, a text and the calls in which it is fed."""

    config: minikv.ModelConfig
    seed: int
    scale: float
    calls: list[list[int]]
    query_block: int = 128  # queries that minikv's attention takes at once


@st.composite
def texts(draw: st.DrawFn) -> Text:
    groups, share, layers = draw(st.sampled_from([(2, 2, 2), (1, 3, 2), (3, 1, 1), (2, 1, 3)]))
    config = minikv.tiny_config(
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
    )


def agree(text: Text, rule: Rule, policy: str, **parameters) -> None:
    """After each call, the same tokens at each layer and head; the same logits.

    Both sides compute in float64. One block is a chain of sums of n < 200 terms, each exact to
    gamma_n = n u of its absolute terms, u = 2**-53. At most 3 blocks, through which a change
    grows by less than 1e3 (25 was measured), put the logits within 3 * 1e3 * 200 u < 1e-10 of
    their largest. Keeping a wrong token moves them by 4e-4 and up (measured).
    """
    tensors = minikv.random_tensors(text.config, text.seed, text.scale)
    weights = minikv.build(text.config, tensors, "float64")
    cache = minikv.Model(weights).new_cache(policy, **parameters)
    oracle = Oracle(tensors, text.config, rule, parameters.get("reposition", False))
    for ids in text.calls:
        with patch.object(minikv.layers, "_QUERY_BLOCK", text.query_block):
            got = np.asarray(minikv.forward(weights, [ids], [cache], logits="all"))
        try:
            expected = oracle.feed(ids)
        except NearTie:
            event("near tie")
            return
        state = cache.state()[0]
        for layer, kept in enumerate(oracle.kept):
            assert state[f"positions.{layer}"].T.tolist() == kept
        assert np.max(np.abs(got - expected)) <= 1e-10 * np.max(np.abs(expected))
    lost = cache.seen > cache.stored
    event("something evicted" if lost else "all kept")


budgets = st.integers(1, 12)


@given(texts(), budgets)
def test_window_is_its_oracle(text, budget):
    agree(text, window(budget), "window", budget=budget)


@given(texts(), st.integers(0, 4), budgets, st.booleans())
def test_streaming_llm_is_its_oracle(text, sinks, more, reposition):
    budget = sinks + more
    agree(
        text,
        streaming_llm(budget, sinks),
        "streaming_llm",
        budget=budget,
        sinks=sinks,
        reposition=reposition,
    )


@given(texts(), budgets, st.data())
def test_h2o_is_its_oracle(text, budget, data):
    recent = data.draw(st.integers(0, budget))
    agree(text, h2o(budget, recent), "h2o", budget=budget, recent=recent)


@given(texts(), budgets, st.sampled_from([1, 3, 7]), st.data())
def test_snapkv_is_its_oracle(text, budget, kernel, data):
    observed = data.draw(st.integers(1, budget))
    agree(
        text,
        snapkv(budget, observed, kernel),
        "snapkv",
        budget=budget,
        window=observed,
        kernel=kernel,
    )


@given(texts(), budgets)
def test_tova_is_its_oracle(text, budget):
    agree(text, tova(budget), "tova", budget=budget)


def test_an_oracle_with_another_rule_disagrees():
    """The comparison can fail: each policy against the rule of its neighbour."""
    rng = np.random.default_rng(0)
    calls = [rng.integers(0, 97, 9).tolist(), *([int(t)] for t in rng.integers(0, 97, 4))]
    text = Text(minikv.tiny_config(rope_theta=512.0), 1, 1.5, calls)
    wrong = {
        "window": window(5),
        "streaming_llm": streaming_llm(4, 2),
        "h2o": h2o(4, 1),
        "snapkv": snapkv(4, 3, 7),
        "tova": h2o(4, 2),
    }
    parameters = {
        "streaming_llm": {"sinks": 1, "reposition": False},
        "h2o": {"recent": 2},
        "snapkv": {"window": 2, "kernel": 7},
    }
    for policy, rule in wrong.items():
        try:
            agree(text, rule, policy, budget=4, **parameters.get(policy, {}))
        except AssertionError:
            continue
        raise RuntimeError(f"{policy} passed for another policy")

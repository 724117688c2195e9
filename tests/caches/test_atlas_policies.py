"""The evicting systems of the atlas as policies: what every policy does, T9, and oracles.

Oracles are rules for `test_oracles.Oracle`, a decoder of loops that shares no code with minikv.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import test_oracles as oracles
import test_policies as shared
from bits import assert_same_bits
from feeding import EXACT, FULL, TEXT, feed, registered
from hypothesis import event, given, settings
from hypothesis import strategies as st
from test_oracles import Kept, Layer, NearTie, Rule, best

import minikv
from minikv.atlas import atlas_policies
from minikv.caches import Evicting, examples
from minikv.verify import THEOREMS, random_case

ATLAS = atlas_policies()
with registered(*ATLAS.values()):
    EXAMPLES = [example for policy in ATLAS.values() for example in examples(policy)]
SHARED = (
    shared.test_what_an_empty_cache_holds_is_nothing,
    shared.test_a_fork_and_its_original_do_not_touch_each_other,
    shared.test_whatever_was_truncated_goes_on_alike_itself_forked_and_saved,
    shared.test_reset_forgets_everything,
    shared.test_a_call_refused_at_the_door_leaves_every_cache_as_it_was,
)
"""Tests of the core's policies that run on these too."""


def test_all_evicting_systems_but_those_of_other_memories_are_policies():
    assert set(ATLAS) == set(ORACLES)
    assert all(issubclass(policy, Evicting) for policy in ATLAS.values())
    assert {policy.policy for policy in ATLAS.values()} == set(ATLAS)


FIRST = {example.policy: example for example in reversed(EXAMPLES)}.values()
OTHERS = [
    pytest.param(example, marks=pytest.mark.slow) for example in EXAMPLES if example not in FIRST
]


@pytest.mark.parametrize("test", SHARED, ids=lambda test: test.__name__)
@pytest.mark.parametrize("example", [*FIRST, *OTHERS], ids=str)
def test_it_does_what_every_policy_does(example, test):
    test(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_budget_for_all_tokens_keeps_all_bits(example):
    if example.policy.policy in ("tim", "arkv"):
        pytest.skip("it drops a span, or rounds rows, whatever the budget")
    whole = {**example.parameters, "budget": len(TEXT)}
    cache = example.policy(EXACT.weights, **whole)
    assert_same_bits(feed(EXACT, cache, TEXT, 9, 1), FULL)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_what_all_layers_hold_is_within_the_budget(example):
    cache = example.new(EXACT.weights)
    held = []
    for start in range(0, len(TEXT), 3):
        feed(EXACT, cache, TEXT[start : start + 3])
        held.append([len(rows) for rows in cache.rows])
    total = example.parameters["budget"] * len(cache.rows)
    assert max(map(sum, held)) <= total
    if not cache.grows:
        assert max(map(max, held)) <= example.parameters["budget"]
    assert_same_bits(np.array(cache.nbytes), np.array(sum(held[-1]) * 2 * 2 * 6 * 4))


@pytest.mark.parametrize("seed", range(2))
def test_t9_bounds_what_each_policy_moves(seed):
    """But for ARKV, whose rows are rounded besides."""
    bounded = [policy for name, policy in ATLAS.items() if name != "arkv"]
    case = random_case(seed, scale=1.0)
    with registered(*bounded):
        THEOREMS["T9"].check(case)


def test_t9_notices_a_policy_that_moves_values():
    class Wrong(ATLAS["trim_kv"]):
        policy = "wrong"

        def update(self, layer, positions, residual, k, v):
            return super().update(layer, positions, residual, k, v * np.float32(9))

    with registered(Wrong), pytest.raises(AssertionError, match="wrong, budget"):
        THEOREMS["T9"].check(random_case(1, scale=1.0))


# Oracles


def ranked(count: int, tokens: list[int], score: dict[int, float]) -> list[int]:
    """The `count` best, in the order of the text."""
    return sorted(best(count, tokens, score)) if len(tokens) > count else tokens


def trim_kv(budget: int, gate: float, gates: tuple[float, ...]) -> Rule:
    def kept(tokens: list[int]) -> list[int]:
        gate_of = {t: gates[t] if t < len(gates) else gate for t in tokens}
        worth = {t: math.log(gate_of[t]) * (tokens[-1] + 1 - t) for t in tokens}
        return ranked(budget, tokens, worth)

    return lambda layer: [kept(tokens) for tokens in layer.tokens]


def lazy_eviction(budget: int, window: int, alpha: float) -> Rule:
    last: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    longest: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)

    def rule(layer: Layer) -> Kept:
        kept = []
        for g, tokens in enumerate(layer.tokens):
            moment, interval = last[layer.index, g], longest[layer.index, g]
            heads = layer.heads(g)
            for query in heads[0]:
                for key in heads[0][query]:
                    weight = math.fsum(head[query][key] for head in heads) / len(heads)
                    if abs(weight - alpha) < 1e-9:
                        raise NearTie
                    if weight >= alpha:
                        since = query - moment.get(key, key)
                        interval[key] = max(interval.get(key, 0), since)
                        moment[key] = query
            if len(tokens) > budget:
                worth = {
                    t: -(tokens[-1] - moment.get(t, t)) / (1.0 + interval.get(t, 0)) for t in tokens
                }
                worth |= dict.fromkeys(tokens[max(0, len(tokens) - window) :], math.inf)
                tokens = ranked(max(1, budget - window), tokens, worth)
            kept.append(tokens)
        return kept

    return rule


def drawn(budget: int, seed: int, pause: int) -> Rule:
    def rule(layer: Layer) -> Kept:
        rng = np.random.default_rng([seed, layer.index])
        worth = rng.random((128, len(layer.tokens)))
        return [
            tokens
            if len(tokens) <= budget
            else ranked(max(1, budget - pause + 1), tokens, {t: worth[t, g] for t in tokens})
            for g, tokens in enumerate(layer.tokens)
        ]

    return rule


def infinite_vggt(budget: int, anchors: int) -> Rule:
    def kept(tokens: list[int], keys: dict[int, list[float]]) -> list[int]:
        unit = {t: [x / math.hypot(*keys[t]) for x in keys[t]] for t in tokens}
        others = [t for t in tokens if t >= anchors]
        width = len(keys[tokens[0]])
        mean = [math.fsum(unit[t][i] for t in others) / (len(others) or 1) for i in range(width)]
        length = math.hypot(*mean) or 1.0
        likeness = {
            t: round(math.fsum(x * y / length for x, y in zip(unit[t], mean, strict=True)), 9)
            for t in tokens
        }
        worth = {t: math.inf if t < anchors else -likeness[t] for t in tokens}
        return sorted(best(budget, tokens, worth, repeats=True)) if len(tokens) > budget else tokens

    return lambda layer: [kept(*head) for head in zip(layer.tokens, layer.keys, strict=True)]


def tri_attention(budget: int, ahead: int) -> Rule:
    def pairs(key: list[float]) -> list[complex]:
        half = len(key) // 2
        return [complex(key[i], key[half + i]) for i in range(half)]

    def kept(tokens: list[int], keys: dict[int, list[float]]) -> list[int]:
        half = len(keys[tokens[0]]) // 2
        rates = [float(np.float32(512.0 ** (-i / half))) for i in range(half)]
        before = {
            t: [z * np.exp(-1j * t * rate) for z, rate in zip(pairs(keys[t]), rates, strict=True)]
            for t in tokens
        }
        centre = [sum(before[t][i] for t in tokens) / len(tokens) for i in range(half)]
        size = [sum(abs(before[t][i]) for t in tokens) / len(tokens) for i in range(half)]
        steps = [step for step in (1, 2, 4, 8) if step <= ahead]
        worth = {}
        for t in tokens:
            beyond = sum((size[i] - abs(centre[i])) * abs(before[t][i]) for i in range(half))
            preference = sum(
                (centre[i] * before[t][i].conjugate() * np.exp(1j * distance * rates[i])).real
                for step in steps
                for i, distance in enumerate([tokens[-1] + step - t] * half)
            )
            worth[t] = beyond + preference / len(steps)
        return ranked(budget, tokens, {t: round(value, 9) for t, value in worth.items()})

    return lambda layer: [kept(*head) for head in zip(layer.tokens, layer.keys, strict=True)]


def tim(budget: int, start: int, stop: int) -> Rule:
    def kept(tokens: list[int]) -> list[int]:
        if tokens[-1] >= stop:
            tokens = [t for t in tokens if not start <= t < stop]
        return tokens[-budget:]

    return lambda layer: [kept(tokens) for tokens in layer.tokens]


def received(layer: Layer, group: int) -> dict[int, float]:
    """What each key of a head got from all queries of its group in this call."""
    total: dict[int, float] = defaultdict(float)
    for head in layer.heads(group):
        for row in head.values():
            for token, weight in row.items():
                total[token] += weight
    return total


def prefix_kv(budget: int) -> Rule:
    done: list[tuple[Kept, dict[int, float]]] = []

    def rule(layer: Layer) -> Kept:
        kept = [list(tokens) for tokens in layer.tokens]
        importance: dict[int, float] = defaultdict(float)
        for g in range(len(kept)):
            for token, weight in received(layer, g).items():
                importance[token] += weight
        done.append((kept, importance))
        if len(done) == rule.layers:
            cut(done)
            done.clear()
        return kept

    def cut(layers: list[tuple[Kept, dict[int, float]]]) -> None:
        """Take tokens at the smallest shares of their layers' importance first."""
        events = []
        for n, (kept, importance) in enumerate(layers):
            whole = math.fsum(importance[t] for t in kept[0])
            reached = 0.0
            for weight in sorted((importance[t] for t in kept[0]), reverse=True)[:-1]:
                reached += weight / whole
                events.append((reached, n))
        events.sort()
        extra = max(0, budget * len(layers) - len(layers))
        if 0 < extra < len(events) and events[extra][0] - events[extra - 1][0] < 1e-9:
            raise NearTie
        for n, (kept, importance) in enumerate(layers):
            count = 1 + sum(layer == n for _, layer in events[:extra])
            kept[:] = [ranked(count, tokens, importance) for tokens in kept]

    rule.layers = 0
    return rule


def cake(budget: int, window: int, gamma: float, cascade: bool) -> Rule:
    done: list[tuple[Kept, float, list[dict[int, float]]]] = []

    def rule(layer: Layer) -> Kept:
        kept = [list(tokens) for tokens in layer.tokens]
        entropy = spread = 0.0
        indicators = []
        for g, tokens in enumerate(kept):
            voters = [q for q in layer.heads(g)[0] if q > tokens[-1] - window]
            votes = {
                t: [head[q].get(t, 0.0) for head in layer.heads(g) for q in voters] for t in tokens
            }
            mean = {t: math.fsum(votes[t]) / len(votes[t]) for t in tokens}
            variance = {
                t: max(0.0, math.fsum(x * x for x in votes[t]) / len(votes[t]) - mean[t] ** 2)
                for t in tokens
            }
            entropy -= math.fsum(p * math.log(p) for p in mean.values() if p > 0)
            spread += math.fsum(variance.values())
            worth = {t: mean[t] + gamma * variance[t] for t in tokens}
            worth |= dict.fromkeys(tokens[max(0, len(tokens) - window) :], math.inf)
            indicators.append(worth)
        done.append((kept, 1e-9 + entropy * math.sqrt(1e-9 + spread), indicators))
        if cascade or len(done) == rule.layers:
            deal()
        if len(done) == rule.layers:
            done.clear()
        return kept

    def deal() -> None:
        """One token after the other to the layer of the largest preference a token."""
        counts = [0] * len(done)
        for _ in range(budget * rule.layers):
            open_layers = [n for n, (kept, *_) in enumerate(done) if counts[n] < len(kept[0])]
            if not open_layers:
                break
            worth = {n: math.inf if counts[n] == 0 else done[n][1] / counts[n] for n in open_layers}
            order = sorted(open_layers, key=lambda n: (-worth[n], counts[n], n))
            if len(order) > 1 and worth[order[0]] < math.inf:
                first, second = (worth[n] for n in order[:2])
                if first - second < 1e-7 * first:
                    raise NearTie
            counts[order[0]] += 1
        for count, (kept, _, indicators) in zip(counts, done, strict=True):
            kept[:] = [
                ranked(count, tokens, worth) for tokens, worth in zip(kept, indicators, strict=True)
            ]

    rule.layers = 0
    return rule


ORACLES: dict[str, Callable[..., Rule]] = {
    "arkv": lambda budget, bits, original: oracles.h2o(budget, 1),
    "cake": cake,
    "infinite_vggt": infinite_vggt,
    "lazy_eviction": lazy_eviction,
    "lookahead_kv": lambda budget, importance: oracles.window(budget),
    "neural_garbage_collection": drawn,
    "prefix_kv": prefix_kv,
    "tim": tim,
    "tri_attention": tri_attention,
    "trim_kv": trim_kv,
}


def rule_of(name: str, layers: int, parameters: dict) -> Rule:
    rule = ORACLES[name](**parameters)
    if hasattr(rule, "layers"):
        rule.layers = layers
    return rule


@pytest.mark.parametrize("name", ATLAS)
@given(text=oracles.texts(), budget=st.integers(1, 12), data=st.data())
@settings(max_examples=4)
def test_a_system_is_its_oracle(name, text, budget, data):
    policy = ATLAS[name]
    given_parameters = data.draw(st.sampled_from(policy.examples(budget)))
    if name == "arkv":
        given_parameters = {"budget": budget, "original": 1.0}  # the set alone: no row rounded
    parameters = policy(EXACT.weights, **given_parameters).parameters
    with registered(policy):
        rule = rule_of(name, text.config.num_hidden_layers, parameters)
        event(oracles.agree(text, rule, name, **parameters))


@pytest.mark.parametrize("name", ATLAS)
def test_the_oracle_of_another_budget_disagrees(name):
    """The comparison can fail."""
    rng = np.random.default_rng(0)
    calls = [rng.integers(0, 97, 9).tolist(), *([int(t)] for t in rng.integers(0, 97, 4))]
    text = oracles.Text(minikv.tiny_config(rope_theta=512.0), 1, 1.5, calls)
    policy = ATLAS[name]
    fixed = {"original": 1.0} if name == "arkv" else {}
    parameters = policy(EXACT.weights, budget=5, **fixed).parameters
    rule = rule_of(name, text.config.num_hidden_layers, parameters | {"budget": 4})
    with registered(policy), pytest.raises(AssertionError):
        oracles.agree(text, rule, name, **parameters)

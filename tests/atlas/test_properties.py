"""What the kinds of the atlas promise, on random models and numbers, each with its control."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bits import assert_same_bits

from minikv.atlas.budgets import shares
from minikv.atlas.ground import TOKENS, decoded, new_full
from minikv.atlas.quantising import distortion, rounded, softmax
from minikv.atlas.reading import Reading
from minikv.atlas.systems.ice_cache import Paged
from minikv.atlas.systems.long_heads import OwnChunks
from minikv.atlas.systems.louis_kv import Turning
from minikv.atlas.systems.lychee_decode import HybridHeads
from minikv.atlas.systems.prefix_kv import allotted
from minikv.atlas.systems.rlkv import BUDGET, SINKS, HeadMask
from minikv.atlas.systems.s2o import EarlyStop
from minikv.atlas.systems.trim_kv import TrimKV
from minikv.atlas.systems.zoomr import TwoLevels
from minikv.caches import StreamingLLM, Window
from minikv.verify import random_case
from minikv.verify.bits import same_bits
from minikv.verify.theorems.t09_bounded_loss import attention_loss, heads, longest

SEEDS = range(4)


def case_of(seed: int):
    """A random model of any family, with windows or not, whose calls end one by one."""
    case = random_case(seed, size=0.6, scale=1.0)
    return case if len(case.ids) >= 6 else case_of(seed + 100)


EVERYTHING = {
    "zoomr": lambda inner: TwoLevels(inner, 99),
    "long_heads": lambda inner: OwnChunks(inner, 99),
    "louis_kv": lambda inner: Turning(inner, 99, 0.5),
    "lychee_decode": lambda inner: HybridHeads(inner, 99),
    "s2o": lambda inner: EarlyStop(inner, 0.0),
    "ice_cache": lambda inner: Paged(inner, 99),
}


def one_by_one(case, memory) -> np.ndarray:
    """Logits, where all but the first tokens come alone: what selects, selects."""
    rows = [np.asarray(case.model.forward([case.ids[:4]], [memory], "all"))]
    rows += [np.asarray(case.model.forward([[t]], [memory], "all")) for t in case.ids[4:]]
    return np.concatenate(rows)


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_read_is_the_full_cache_on_any_model(name):
    for seed in SEEDS[:3]:
        case = case_of(seed)
        memory = EVERYTHING[name](case.model.new_cache("full"))
        assert_same_bits(one_by_one(case, memory), case.logits)


def test_reading_without_one_key_is_not_the_full_cache():
    """The control: the rows that are put out of sight are not seen."""

    class AllButTheFirst(Reading):
        def chosen(self, layer, q, keys):
            read = np.ones(keys.shape[:2], dtype=bool)
            read[0] = False
            return read

    case = case_of(3)
    memory = AllButTheFirst(case.model.new_cache("full"))
    assert not same_bits(one_by_one(case, memory), case.logits)


SOME = {
    "zoomr": lambda inner: TwoLevels(inner, 1),
    "long_heads": lambda inner: OwnChunks(inner, 1),
    "louis_kv": lambda inner: Turning(inner, 2, 0.5),
    "lychee_decode": lambda inner: HybridHeads(inner, 2),
    "s2o": lambda inner: EarlyStop(inner, 0.3),
    "ice_cache": lambda inner: Paged(inner, 1),
    "rlkv": lambda inner: HeadMask(inner, [False] * inner.weights.config.num_key_value_heads),
}


def moved_and_left_out(name: str, seed: int):
    """Each head of layer 0 at the last token: how far it moves, weights, values, rows read."""
    case = case_of(seed)
    memory = SOME[name](case.model.new_cache("full"))
    outputs = {}

    def look(name, value):
        outputs[name] = value
        return value

    for calls in ([case.ids[:2]], *([[t]] for t in case.ids[2:])):
        case.model.forward(calls, [memory], "all", look)
    z, full = (
        np.asarray(found["blocks.0.attn.hook_z"], dtype=np.float64)[-1]
        for found in (outputs, case.activations)
    )
    share = len(z) // memory.reads[0].shape[1]
    for head, (weights, v) in enumerate(heads(case, 0)):
        yield (
            float(np.linalg.norm(z[head] - full[head])),
            weights,
            v,
            memory.reads[0][:, head // share],
        )


@pytest.mark.parametrize("name", SOME)
def test_t9_bounds_a_head_that_reads_a_part(name):
    without = 0
    for seed in SEEDS[:2]:
        for moved, weights, v, read in moved_and_left_out(name, seed):
            rounding = 4 * (2 * len(weights) + math.sqrt(v.shape[1]) + 8) * 2.0**-24 * longest(v)
            assert moved <= attention_loss(weights, v, read)[1] + rounding
            without += moved > attention_loss(weights, v, np.ones_like(read))[1] + rounding
    assert without, "the control: some head moves, which a bound of no weight left out forbids"


def test_heads_outside_the_mask_read_first_and_newest_tokens():
    """The rule of RLKV once more, token by token."""
    for mask in ((True, False), (False, True), (False, False)):
        memory = HeadMask(new_full(), mask)
        decoded(memory)
        for group, whole in enumerate(mask):
            last = TOKENS - 1
            newest = range(last - (BUDGET - SINKS), last + 1)
            rule = [whole or t < SINKS or t in newest for t in range(TOKENS)]
            assert memory.reads[0][:, group].tolist() == rule


def test_shares_add_up_and_no_layer_more_gives_any():
    rng = np.random.default_rng(0)
    for _ in range(60):
        layers = int(rng.integers(1, 6))
        most = rng.integers(1, 30, layers).tolist()
        preferences = rng.random(layers) ** 4 + 1e-6
        total = int(rng.integers(layers, 60))
        dealt = shares(preferences, total, most)
        assert sum(dealt) == min(total, sum(most))
        assert all(1 <= count <= top for count, top in zip(dealt, most, strict=True))
        if layers > 1:
            fewer = shares(preferences[:-1], total, most[:-1])
            assert all(now <= before for now, before in zip(dealt, fewer, strict=False))
        importance = [rng.random(count) for count in most]
        assert sum(allotted(importance, total)) == min(total, sum(most))


def test_proportions_that_are_rounded_do_not_add_up():
    """The control: what is dealt exactly is not dealt by rounding."""
    rng = np.random.default_rng(0)
    preferences = rng.random((60, 3))
    rounded_shares = np.rint(20 * preferences / preferences.sum(axis=1, keepdims=True))
    assert (rounded_shares.sum(axis=1) != 20).any()


def test_gates_are_a_window_or_streaming_llm_on_any_model():
    differ = 0
    for seed in SEEDS:
        case = case_of(seed)
        weights = case.model.weights
        budget = max(3, len(case.ids) // 2)
        window, equal = Window(weights, budget), TrimKV(weights, budget, gate=0.8, gates=())
        sinks = StreamingLLM(weights, budget, sinks=2, reposition=False)
        opened = TrimKV(weights, budget, gate=0.8, gates=(1.0, 1.0))
        logits = [case.decoded(cache) for cache in (window, equal, sinks, opened)]
        assert_same_bits(logits[1], logits[0])
        assert_same_bits(logits[3], logits[2])
        for row in range(len(weights.layers)):
            assert equal.rows[row].positions.tolist() == window.rows[row].positions.tolist()
            assert opened.rows[row].positions.tolist() == sinks.rows[row].positions.tolist()
        differ += not same_bits(logits[3], logits[0])
    assert differ, "gates of 1 change nothing"


def test_a_head_moves_by_two_tanh_of_half_the_spread_at_most():
    """And no smaller factor will do: half of it is exceeded."""
    rng = np.random.default_rng(1)
    half = closest = 0
    for _ in range(400):
        keys, width = int(rng.integers(1, 20)), int(rng.integers(1, 6))
        scores = rng.normal(size=keys) * rng.choice([0.1, 1.0, 10.0])
        delta = float(rng.choice([1e-3, 0.1, 1.0, 5.0]))
        moves = rng.choice([-delta, delta], keys) + rng.normal()  # a shift of all is free
        values = rng.normal(size=(keys, width))
        if rng.random() < 0.3:  # what attains it: two keys, opposite values
            values = np.where(moves[:, None] > moves.mean(), 1.0, -1.0) * np.ones((1, 1))
            ours = softmax(scores)
            scores = scores - np.log(ours)
            scores = scores - moves / 2
        errors = rng.normal(size=values.shape) * float(rng.choice([0.0, 0.01]))
        moved, bound = distortion((scores, scores + moves), (values, values + errors))
        assert moved <= bound
        spread = 2 * math.tanh(delta / 2) * np.linalg.norm(values, axis=-1).max()
        eta = np.linalg.norm(errors, axis=-1).max()
        half += moved > 0.5 * spread + eta + 1e-9
        closest = max(closest, moved / bound)
    assert half > 10
    assert closest > 0.9


def test_a_rounded_row_is_off_by_half_a_step():
    rng = np.random.default_rng(2)
    beyond = 0
    for bits in (1, 2, 4, 8):
        x = rng.normal(size=(20, 7))
        back, step = rounded(x, bits)
        assert (np.abs(back - x) <= step / 2 * (1 + 1e-12)).all()
        beyond += int((np.abs(back - x) > step / 3).any())
    assert beyond == 4

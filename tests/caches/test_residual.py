"""Residual: recent K and V in rings, checkpoints in chunks, and what is replayed when."""

from __future__ import annotations

import gc
import itertools
import types

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from feeding import EXACT, FULL, KV_BYTES, LAYERS, TEXT, VECTOR_BYTES, Stop, feed, random_model

import minikv
from minikv.caches.residual import replay
from minikv.caches.residual.checkpoints import Checkpoint
from minikv.caches.residual.ring import Ring
from minikv.config import SLIDING

TOKEN_BYTES = {  # of one token's checkpoints
    "embedding": VECTOR_BYTES,
    "tokens": 4,
    "every": LAYERS * VECTOR_BYTES,
    2: 2 * VECTOR_BYTES,
    (0, 2): 2 * VECTOR_BYTES,
}


@pytest.mark.parametrize("checkpoints", TOKEN_BYTES)
@pytest.mark.parametrize("budget", [0, 1, 7])
def test_any_checkpoints_and_budget_give_the_bits_of_the_full_cache(checkpoints, budget):
    for sizes in ((), (7, 1, 9, 1), (1,) * 23):
        cache = EXACT.new_cache("residual", budget=budget, checkpoints=checkpoints)
        assert_same_bits(feed(EXACT, cache, TEXT, *sizes), FULL)


@pytest.mark.parametrize("checkpoints", TOKEN_BYTES)
@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_replay_goes_in_chunks(checkpoints, chunk):
    for budget, sizes in ((3, (8, 8, 1, 1)), (7, (4,)), (12, (15, 1, 1))):
        cache = EXACT.new_cache("residual", budget=budget, checkpoints=checkpoints, chunk=chunk)
        assert_same_bits(feed(EXACT, cache, TEXT, *sizes), FULL)
        twin = cache.fork()
        twin.truncate(8)
        assert_same_bits(feed(EXACT, twin, TEXT[8:], 1), FULL[8:])


def arrays_held(cache) -> int:
    """Bytes of all arrays that a cache leads to, but its model's, each piece of memory once."""
    passed = {id(cache.weights)}
    waiting = [cache]
    memory = {}
    while waiting:
        one = waiting.pop()
        if id(one) in passed or isinstance(one, (type, types.ModuleType, types.FunctionType)):
            continue
        passed.add(id(one))
        if isinstance(one, np.ndarray):
            memory[id(one if one.base is None else one.base)] = one.nbytes
        waiting += gc.get_referents(one)
    return sum(memory.values())


@pytest.mark.parametrize("checkpoints", TOKEN_BYTES)
def test_nothing_is_left_of_a_call_but_what_is_counted(checkpoints):
    """No stream that was replayed, nor what it made: chunks of one row have no spare room."""
    cache = EXACT.new_cache("residual", budget=3, checkpoints=checkpoints, chunk=1)
    feed(EXACT, cache, TEXT, 8, 8, *[1] * 8)
    assert cache.nbytes <= arrays_held(cache) <= cache.nbytes + 1000


def test_where_nothing_is_said_128_tokens_are_kept_and_256_recomputed_at_a_time(monkeypatch):
    model = random_model(2, num_hidden_layers=1, max_position_embeddings=600)
    cache = model.new_cache("residual")
    ids = np.random.default_rng(1).integers(0, 97, 128 + 257).tolist()
    feed(model, cache, ids)
    assert cache.stored == 128
    rows = []
    replayed = replay.kv_from_residual

    def counted(residual, *rest):
        rows.append(len(residual))
        return replayed(residual, *rest)

    monkeypatch.setattr(replay, "kv_from_residual", counted)
    feed(model, cache, [1])
    assert rows == [256, 1]


def test_replay_takes_more_than_one_chunk_of_the_usual_length():
    model = random_model(2, num_hidden_layers=2, max_position_embeddings=600)
    ids = np.random.default_rng(1).integers(0, 97, 515).tolist()
    cache = model.new_cache("residual", budget=2)
    assert len(ids) > 2 * cache.chunk
    assert_same_bits(feed(model, cache, ids, 256, 258), feed(model, model.new_cache(), ids))


@pytest.mark.parametrize("checkpoints", ["embedding", "every"])
def test_in_float32_it_is_not_full(checkpoints):
    """The negative control: decoding and recomputation call BLAS with different shapes."""
    for seed in range(50):
        model = minikv.random_model(minikv.tiny_config(hidden_size=64), seed=seed)
        cache = model.new_cache("residual", budget=1, checkpoints=checkpoints)
        steps = (1,) * 23
        full = feed(model, model.new_cache(), TEXT, *steps)
        if not same_bits(feed(model, cache, TEXT, *steps), full):
            return
    pytest.fail("no counter-example in 50 models")


@pytest.mark.parametrize("checkpoints", TOKEN_BYTES)
@pytest.mark.parametrize("budget", [0, 1, 7])
def test_bytes_are_those_of_the_budget_and_the_checkpoints(checkpoints, budget):
    cache = EXACT.new_cache("residual", budget=budget, checkpoints=checkpoints)
    for seen in range(1, 20):
        EXACT.forward([[seen]], [cache])
        rows = min(seen, budget)
        assert (cache.seen, cache.stored) == (seen, rows)
        assert cache.nbytes == rows * KV_BYTES + seen * TOKEN_BYTES[checkpoints]


@pytest.mark.parametrize(("checkpoints", "blocks"), [("embedding", 2), ("every", 0), (2, 1)])
def test_replay_runs_each_evicted_token_once_a_block(checkpoints, blocks, monkeypatch):
    """Linear: a step replays the evicted tokens through the blocks that lead to no checkpoint."""
    run = []
    projected = []
    block = replay.block
    project = replay.kv_from_residual

    def counted_block(layer, rows, *more):
        run.append(len(rows))
        return block(layer, rows, *more)

    def counted_projection(rows, *more):
        projected.append(len(rows))
        return project(rows, *more)

    monkeypatch.setattr(replay, "block", counted_block)
    monkeypatch.setattr(replay, "kv_from_residual", counted_projection)
    cache = EXACT.new_cache("residual", budget=4, checkpoints=checkpoints)
    feed(EXACT, cache, TEXT[:20])
    assert not run  # a prompt is not replayed
    assert not projected
    feed(EXACT, cache, TEXT[20:21])
    assert sum(run) == 16 * blocks
    assert sum(run) + sum(projected) == 16 * LAYERS


def test_truncated_it_refills_its_budget_at_the_next_call():
    cache = EXACT.new_cache("residual", budget=8)
    feed(EXACT, cache, TEXT[:20])
    cache.truncate(14)
    assert cache.stored == 2  # of tokens 12 to 19, those before 14
    assert_same_bits(feed(EXACT, cache, TEXT[14:15]), FULL[14:15])
    assert cache.stored == 8


def test_truncation_to_the_least_length_is_allowed():
    model = random_model(
        0, model_type="mistral", num_hidden_layers=1, sliding_window=3, layer_types=(SLIDING,)
    )
    cache = model.new_cache("residual", budget=0, forget=True, chunk=4)
    model.forward([TEXT[:15]], [cache])
    assert len(cache.state()[0]["checkpoint.0"]) == 3  # 12 are forgotten
    cache.truncate(14)
    assert cache.seen == 14


def test_equal_checkpoints_may_be_written_in_several_ways():
    every = EXACT.new_cache("residual", checkpoints="every")
    for same in (1, {2, 1, np.int32(0)}, np.array([0, 1, 2]), range(3), (n for n in (2, 0, 1))):
        cache = EXACT.new_cache("residual", checkpoints=same)
        assert cache.parameters == every.parameters
        assert cache.layers_kept == (0, 1, 2)


@pytest.mark.parametrize("strike", [1, 2, 3])
@pytest.mark.parametrize("rows", [0, 1])
def test_it_survives_an_interrupt_while_a_ring_is_written(strike, rows, monkeypatch):
    """At one layer or another, before or after the first of two rows."""
    cache = EXACT.new_cache("residual", budget=4)
    feed(EXACT, cache, TEXT[:9], 5)
    write = Ring.write
    writes = itertools.count(1)

    def struck(self, start, k, v):
        if next(writes) == strike:
            write(self, start, k[:rows], v[:rows])
            raise Stop
        write(self, start, k, v)

    with monkeypatch.context() as patch:
        patch.setattr(Ring, "write", struck)
        with pytest.raises(Stop):
            EXACT.forward([TEXT[:2]], [cache])
    assert_same_bits(feed(EXACT, cache, TEXT[9:], 1), FULL[9:])


def test_a_state_loaded_into_an_interrupted_cache_is_whole():
    good = EXACT.new_cache("residual", budget=4)
    broken = EXACT.new_cache("residual", budget=4)
    feed(EXACT, good, TEXT[:9])
    feed(EXACT, broken, TEXT[:5])

    def failing(name, value):
        if name == "blocks.1.hook_resid_mid":
            raise Stop
        return value

    with pytest.raises(Stop):
        EXACT.forward([TEXT[:3]], [broken], hook=failing)
    broken.load_state(*good.state())
    assert (broken.stored, broken.nbytes) == (good.stored, good.nbytes)
    assert_same_bits(feed(EXACT, broken, TEXT[9:], 1), FULL[9:])


# Its parts


def rows_of(positions: range) -> np.ndarray:
    """Rows that say which position they are of, ``(T, 1, 1)``."""
    return np.array(positions, dtype=np.float32).reshape(-1, 1, 1)


@pytest.mark.parametrize("capacity", [1, 3, 5])
def test_a_ring_gives_back_the_newest_rows_by_their_positions(capacity):
    ring = Ring(np.full((capacity, 1, 1), np.nan), np.full((capacity, 1, 1), np.nan))
    written = 0
    for count in (1, capacity, 1, 1, capacity):
        rows = rows_of(range(written, written + count))
        ring.write(written, rows, -rows)
        written += count
        for start in range(max(0, written - capacity), written + 1):
            pieces = list(ring.read(start, written))
            assert len(pieces) <= 2
            read = [p for positions, _, _ in pieces for p in range(positions.start, positions.stop)]
            assert read == list(range(start, written))
            for positions, k, v in pieces:
                assert (k == rows_of(range(positions.start, positions.stop))).all()
                assert (v == -k).all()


def test_a_ring_overwrites_the_oldest():
    ring = Ring(np.zeros((2, 1, 1)), np.zeros((2, 1, 1)))
    ring.write(0, rows_of(range(2)), rows_of(range(2)))
    ring.write(2, rows_of(range(2, 3)), rows_of(range(2, 3)))
    pieces = list(ring.read(0, 1))
    assert pieces[0][1].item() == 2  # where position 0 lay


def test_what_a_ring_gives_are_views_of_row_p_modulo_its_capacity():
    k, v = np.zeros((3, 1, 1)), np.zeros((3, 1, 1))
    ring = Ring(k, v)
    ring.write(0, rows_of(range(3)), -rows_of(range(3)))
    for given, held in zip(ring.from_the_start(2), (k, v), strict=True):
        assert np.shares_memory(given, held)
        assert_same_bits(given, held[:2])
    ring.write(3, rows_of(range(3, 5)), -rows_of(range(3, 5)))
    assert k[:, 0, 0].tolist() == [3, 4, 2]
    pieces = list(ring.read(2, 5))
    assert [positions for positions, _, _ in pieces] == [slice(2, 3), slice(3, 5)]
    for _, keys, values in pieces:
        assert np.shares_memory(keys, k)
        assert np.shares_memory(values, v)


def test_a_checkpoint_that_grows_copies_no_chunk():
    checkpoint = Checkpoint(np, np.empty((0, 2)), 4)
    checkpoint.append(np.ones((6, 2)))
    before = [checkpoint.chunk(start) for start in (0, 4)]
    checkpoint.append(np.ones((40, 2)))
    assert [checkpoint.chunk(start) is one for start, one in zip((0, 4), before, strict=True)] == [
        True,
        True,
    ]
    assert {len(checkpoint.chunk(start)) for start in range(0, 46, 4)} == {4}


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_a_checkpoint_keeps_what_was_appended_less_what_was_forgotten(chunk):
    rows = np.arange(20.0).reshape(10, 2)
    checkpoint = Checkpoint(np, np.empty((0, 2)), chunk)
    for start, stop in ((0, 4), (4, 5), (5, 10)):
        checkpoint.append(rows[start:stop])
        assert_same_bits(checkpoint.joined(stop), rows[:stop])
    checkpoint.truncate(7)
    checkpoint.append(rows[:2])
    expected = np.concatenate([rows[:7], rows[:2]])
    assert_same_bits(checkpoint.joined(9), expected)
    checkpoint.forget(5)
    assert checkpoint.first == 5 // chunk * chunk  # whole chunks are forgotten
    assert_same_bits(checkpoint.joined(9), expected[checkpoint.first :])
    for start in range(checkpoint.first, 9, chunk):
        held = min(chunk, 9 - start)
        assert_same_bits(checkpoint.chunk(start)[:held], expected[start : start + held])

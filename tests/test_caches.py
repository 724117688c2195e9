"""Caches: lossless ones give Full's bits, all say what they hold, and wrong input is named."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save_file

import minikv
from minikv.caches import Cache, Evicting, Residual, Scheduled, SnapKV, make_cache
from minikv.caches import residual as residual_module
from minikv.errors import CacheError, InputError

EXACT = minikv.random_model(minikv.tiny_config(num_hidden_layers=3), seed=1, arithmetic="exact")
TEXT = np.random.default_rng(0).integers(0, 97, 24).tolist()
CHECKPOINTS = ("embedding", "tokens", "every", 2, [0, 2])
EVICTING = ("window", "streaming_llm", "h2o", "snapkv", "tova")
LOSSLESS = {
    "full": {},
    "none": {},
    **{
        f"residual {c} {b}": {"budget": b, "checkpoints": c} for c in CHECKPOINTS for b in (0, 1, 7)
    },
}


def bits(array) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint32)


def same(a, b) -> bool:
    return a.shape == b.shape and bool((bits(a) == bits(b)).all())


def feed(model: minikv.Model, cache: Cache, ids, *sizes: int, **options) -> np.ndarray:
    """Logits of `ids`, fed in calls of these sizes and then the rest."""
    edges = np.cumsum([0, *sizes, len(ids) - sum(sizes)])
    calls = [ids[a:b] for a, b in itertools.pairwise(edges) if b > a]
    return np.concatenate(
        [np.asarray(model.forward([c], [cache], logits="all", **options)) for c in calls]
    )


def policy(name: str, model: minikv.Model = EXACT, **more) -> Cache:
    """A cache by its key in LOSSLESS, or an eviction policy of budget 5."""
    if name == "scheduled":
        return Scheduled(model.weights, thirds)
    if name in LOSSLESS:
        return model.new_cache(name.split()[0], **LOSSLESS[name] | more)
    sinks = {"sinks": 2} if name == "streaming_llm" else {}
    return model.new_cache(name, **{"budget": 5} | sinks | more)


def thirds(step: int, layer: int, position: int) -> str:
    return ("kv", "residual", "both")[(7 * step + 3 * layer + position) % 3]


FULL = feed(EXACT, EXACT.new_cache(), TEXT)


# What is lossless, and what is not


@pytest.mark.parametrize("name", [*LOSSLESS, "scheduled"])
def test_a_lossless_cache_gives_the_bits_of_the_full_one(name):
    for sizes in ((), (7, 1, 9, 1), (1,) * 23):
        assert same(feed(EXACT, policy(name), TEXT, *sizes), FULL)


@pytest.mark.parametrize("checkpoints", CHECKPOINTS)
@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_residual_replays_in_chunks(checkpoints, chunk, monkeypatch):
    monkeypatch.setattr(residual_module, "_CHUNK", chunk)
    for budget, sizes in ((3, (8, 8, 1, 1)), (7, (4,)), (12, (15, 1, 1))):
        cache = EXACT.new_cache("residual", budget=budget, checkpoints=checkpoints)
        assert same(feed(EXACT, cache, TEXT, *sizes), FULL)
        twin = cache.fork()
        twin.truncate(8)
        assert same(feed(EXACT, twin, TEXT[8:], 1), FULL[8:])


def test_residual_replays_more_than_one_chunk_of_the_usual_length():
    config = minikv.tiny_config(max_position_embeddings=600)
    model = minikv.random_model(config, seed=2, arithmetic="exact")
    ids = np.random.default_rng(1).integers(0, 97, 515).tolist()
    cache = model.new_cache("residual", budget=2)
    assert same(feed(model, cache, ids, 256, 258), feed(model, model.new_cache(), ids))


# How TEXT is cut into calls.
cuts = st.sets(st.integers(1, 23), max_size=5)
callings = cuts.map(lambda at: [b - a for a, b in itertools.pairwise([0, *sorted(at), 24])])


@given(st.sampled_from(EVICTING), st.integers(24, 128), callings)
def test_an_eviction_policy_that_need_not_evict_is_full(name, budget, sizes):
    assert same(feed(EXACT, policy(name, budget=budget), TEXT, *sizes), FULL)


@pytest.mark.parametrize("name", EVICTING)
def test_an_eviction_policy_below_full_budget_is_not_full(name):
    got = feed(EXACT, policy(name), TEXT, 8, 1, 1)
    assert same(got[:8], FULL[:8])  # nothing was evicted before the first call
    assert not same(got, FULL)


@pytest.mark.parametrize("checkpoints", ["embedding", "every"])
def test_in_float32_residual_is_not_full(checkpoints):
    """The negative control: decoding and recomputation call BLAS with different shapes."""
    for seed in range(50):
        model = minikv.random_model(minikv.tiny_config(hidden_size=64), seed=seed)
        cache = model.new_cache("residual", budget=1, checkpoints=checkpoints)
        steps = (1,) * 23
        if not same(feed(model, cache, TEXT, *steps), feed(model, model.new_cache(), TEXT, *steps)):
            return
    pytest.fail("no counter-example in 50 models")


@given(st.sampled_from(EVICTING), st.integers(3, 9), callings)
def test_what_is_kept_are_rows_of_full(name, budget, sizes):
    """Bit for bit: at layer 0 always; above it, rows made while every token before was still held.

    A later row at a higher layer is another row, since its stream passed through an attention
    that missed something.
    """
    cache, full = policy(name, budget=budget), EXACT.new_cache()
    feed(EXACT, full, TEXT)
    made_from_all = start = 0
    for size in sizes:
        if cache.stored == cache.seen:
            made_from_all = start + size
        EXACT.forward([TEXT[start : start + size]], [cache])
        start += size
    held, rows = cache.state()[0], full.state()[0]
    for layer, kind in itertools.product(range(3), "kv"):
        for head, at in enumerate(held[f"positions.{layer}"].T):
            # Later keys of StreamingLLM are made at a position in the cache.
            always = layer == 0 and not (kind == "k" and name == "streaming_llm")
            there = (at >= 0) if always else at < made_from_all
            got = held[f"{kind}.{layer}"][there, head]
            assert same(got, rows[f"{kind}.{layer}"][at[there], head])


def test_a_row_made_after_an_eviction_is_not_fulls():
    cache, full = policy("window"), EXACT.new_cache()
    for c in (cache, full):
        feed(EXACT, c, TEXT, 8, 8)
    at = cache.state()[0]["positions.2"][:, 0]
    assert not same(cache.state()[0]["k.2"], full.state()[0]["k.2"][at])


# What is held


@pytest.mark.parametrize("name", LOSSLESS)
def test_bytes_of_lossless_caches_follow_their_formula(name):
    cache, options = policy(name), LOSSLESS[name]
    kv = 3 * 2 * 2 * 6 * 4  # layers, K and V, heads, head_dim, float32
    vector = 24 * 4
    checkpoints = (
        {"full": 0, "none": 4}.get(name)
        if not options
        else {
            "embedding": vector,
            "tokens": 4,
            "every": 3 * vector,
            "2": 2 * vector,
            "[0, 2]": 2 * vector,
        }[str(options["checkpoints"])]
    )
    for seen in range(1, 20):
        EXACT.forward([[seen]], [cache])
        rows = {"full": seen, "none": 0}.get(name, min(seen, options.get("budget", 0)))
        assert (cache.seen, cache.stored) == (seen, rows)
        assert cache.nbytes == rows * kv + seen * checkpoints


@pytest.mark.parametrize("name", EVICTING)
def test_bytes_of_eviction_policies_follow_their_formula(name):
    cache = policy(name)
    for seen in range(1, 20):
        EXACT.forward([[seen]], [cache])
        rows = seen if name == "snapkv" else min(seen, 5)  # what is generated stays, in SnapKV
        assert (cache.seen, cache.stored) == (seen, rows)
        assert cache.nbytes == rows * 3 * 2 * 2 * 6 * 4


def test_float64_rows_count_twice():
    model = minikv.random_model(minikv.tiny_config(), seed=0, arithmetic="float64")
    cache = model.new_cache("residual", budget=2)
    feed(model, cache, TEXT)
    assert cache.nbytes == 2 * 2 * 2 * 2 * 6 * 8 + len(TEXT) * 24 * 8


@pytest.mark.parametrize(("checkpoints", "blocks"), [("embedding", 2), ("every", 0), (2, 1)])
def test_replay_runs_each_evicted_token_once_a_block(checkpoints, blocks, monkeypatch):
    """Linear: a step replays the evicted tokens through the blocks that lead to no checkpoint."""
    run, projected = [], []
    block, project = residual_module.block, residual_module.kv_from_residual

    def counted_block(layer, rows, *more):
        run.append(len(rows))
        return block(layer, rows, *more)

    def counted_projection(rows, *more):
        projected.append(len(rows))
        return project(rows, *more)

    monkeypatch.setattr(residual_module, "block", counted_block)
    monkeypatch.setattr(residual_module, "kv_from_residual", counted_projection)
    cache = EXACT.new_cache("residual", budget=4, checkpoints=checkpoints)
    feed(EXACT, cache, TEXT[:20])
    assert not run  # a prompt is not replayed
    assert not projected
    feed(EXACT, cache, TEXT[20:21])
    assert sum(run) == 16 * blocks
    assert sum(run) + sum(projected) == 16 * 3


def test_truncated_residual_refills_its_budget_at_the_next_call():
    cache = EXACT.new_cache("residual", budget=8)
    feed(EXACT, cache, TEXT[:20])
    cache.truncate(14)
    assert cache.stored == 2  # of tokens 12 to 19, those before 14
    assert same(feed(EXACT, cache, TEXT[14:15]), FULL[14:15])
    assert cache.stored == 8


# Forks, states and files


ALL = [*LOSSLESS, "scheduled", *EVICTING]


@pytest.mark.parametrize("name", ALL)
def test_a_fork_and_its_original_do_not_touch_each_other(name):
    cache, alone = policy(name), policy(name)
    for c in (cache, alone):
        feed(EXACT, c, TEXT[:9], 6)
    for ids in (TEXT[15:17], TEXT[15:]):  # over the rows that were there, and beyond them
        twin = cache.fork()
        twin.truncate(3)
        feed(EXACT, twin, ids)
    assert same(feed(EXACT, cache, TEXT[9:], 1), feed(EXACT, alone, TEXT[9:], 1))


def test_a_fork_of_a_single_key_head_is_a_copy():
    """With one head, rows of the cache lie side by side, and a view of them would pass as well."""
    model = minikv.random_model(minikv.tiny_config(num_key_value_heads=1), 0, "exact")
    cache = model.new_cache()
    feed(model, cache, TEXT[:10])
    twin = cache.fork()
    twin.truncate(3)
    feed(model, twin, TEXT[15:18])
    assert same(feed(model, cache, TEXT[10:12]), model.logits(TEXT[:12])[10:])


@pytest.mark.parametrize("name", ALL)
def test_a_state_is_a_copy(name):
    cache = policy(name)
    feed(EXACT, cache, TEXT[:9])
    tensors, metadata = cache.state()
    before = {key: array.copy() for key, array in tensors.items()}
    first, second = policy(name), policy(name)
    first.load_state(tensors, metadata)
    second.load_state(tensors, metadata)
    for c in (cache, first):
        c.truncate(4)
        feed(EXACT, c, TEXT[12:14])
    assert all((tensors[key] == before[key]).all() or name == "scheduled" for key in tensors)
    third = policy(name)
    third.load_state(before, metadata)
    assert same(feed(EXACT, second, TEXT[9:], 1), feed(EXACT, third, TEXT[9:], 1))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seen", [0, 9])
def test_a_saved_cache_goes_on_where_it_was(name, seen, tmp_path):
    cache, loaded = policy(name), policy(name)
    if seen:
        feed(EXACT, cache, TEXT[:seen], 6)
    cache.save(tmp_path / "cache.safetensors")
    feed(EXACT, loaded, TEXT[:3])  # is forgotten
    loaded.load(str(tmp_path / "cache.safetensors"))
    assert (loaded.seen, loaded.stored, loaded.nbytes) == (cache.seen, cache.stored, cache.nbytes)
    assert same(feed(EXACT, loaded, TEXT[seen:], 1), feed(EXACT, cache, TEXT[seen:], 1))


def damaged(tmp_path: Path, cache: Cache) -> Path:
    path = tmp_path / "cache.safetensors"
    cache.save(path)
    return path


def other_model(seed: int = 1, arithmetic: str = "exact", **changes) -> minikv.Model:
    config = minikv.tiny_config(**{"num_hidden_layers": 3} | changes)
    return minikv.random_model(config, seed, arithmetic)


FOREIGN = {
    "another policy": (lambda: EXACT.new_cache("none"), "policy none, expected full"),
    "other weights": (lambda: other_model(seed=2).new_cache(), "model"),
    "another arithmetic": (
        lambda: other_model(arithmetic="float32").new_cache(),
        "arithmetic float32",
    ),
    "another shape": (lambda: other_model(num_hidden_layers=2).new_cache(), "model"),
    "another rope_theta": (lambda: other_model(rope_theta=5.0).new_cache(), "model"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_the_state_of_something_else_is_refused(what, tmp_path):
    make, message = FOREIGN[what]
    other = make()
    path = damaged(tmp_path, other)
    cache = EXACT.new_cache()
    feed(EXACT, cache, TEXT[:5])
    with pytest.raises(CacheError, match=message):
        cache.load(path)
    assert same(feed(EXACT, cache, TEXT[5:]), FULL[5:])  # the cache is what it was


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"budget": 5}, {"budget": 6}),
        ({"checkpoints": 2}, {"checkpoints": "every"}),
        ({"checkpoints": "tokens"}, {"checkpoints": "embedding"}),
    ],
)
def test_the_state_of_other_parameters_is_refused(mine, theirs, tmp_path):
    path = damaged(tmp_path, EXACT.new_cache("residual", **theirs))
    with pytest.raises(CacheError, match=r"the saved cache has parameters .*made as it was"):
        EXACT.new_cache("residual", **mine).load(path)


def test_equal_parameters_may_be_written_in_two_ways(tmp_path):
    path = damaged(tmp_path, EXACT.new_cache("residual", budget=np.int64(5), checkpoints="every"))
    EXACT.new_cache("residual", budget=5, checkpoints={2, 1, np.int32(0)}).load(path)


def test_a_model_that_differs_in_the_embedding_alone_is_another(tmp_path):
    tensors = minikv.random_tensors(EXACT.config, 1)
    tensors["model.embed_tokens.weight"] = -tensors["model.embed_tokens.weight"]
    other = minikv.Model(minikv.build(EXACT.config, tensors, "exact"))
    with pytest.raises(CacheError, match="model"):
        EXACT.new_cache().load(damaged(tmp_path, other.new_cache()))


def test_a_cache_of_a_model_with_other_windows_is_refused(tmp_path):
    """A mistral whose layers differ is another model than one whose layers all slide."""
    sliding, full = "sliding_attention", "full_attention"
    kinds = {"model_type": "mistral", "sliding_window": 2}
    one, other = (
        minikv.random_model(minikv.tiny_config(layer_types=types, **kinds), arithmetic="exact")
        for types in ((sliding, full), (sliding, sliding))
    )
    with pytest.raises(CacheError, match="model"):
        other.new_cache().load(damaged(tmp_path, one.new_cache()))


NOT_CACHES = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a cache"),
    "a folder": lambda path: path.mkdir(),
    "a header that lies": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}" * 20),
    "other tensors": lambda path: save_file({"k.0": np.zeros(3, np.float32)}, path),
    "no tensors": lambda path: save_file({}, path, {"policy": "full"}),
}


@pytest.mark.parametrize("what", NOT_CACHES)
@pytest.mark.parametrize("name", ["full", "residual tokens 7", "h2o"])
def test_a_file_that_is_no_saved_cache_is_refused(what, name, tmp_path):
    path = tmp_path / "cache.safetensors"
    NOT_CACHES[what](path)
    cache = policy(name)
    with pytest.raises(CacheError) as caught:
        cache.load(path)
    assert "\n" not in str(caught.value)
    assert cache.seen == 0


SAVED = {}


def saved(name: str) -> bytes:
    if name not in SAVED:
        from safetensors.numpy import save

        cache = policy(name)
        feed(EXACT, cache, TEXT[:9], 6)
        SAVED[name] = save(*cache.state())
    return SAVED[name]


@given(
    name=st.sampled_from(["full", "none", "residual 2 7", "residual tokens 7", *EVICTING]),
    data=st.data(),
)
def test_a_damaged_file_is_refused_or_read_right(name, data, tmp_path_factory):
    """Bytes flipped, cut out, doubled or cut off: `CacheError`, or what was saved, never else."""
    whole = saved(name)
    at = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(0, 400)))
    some = data.draw(st.binary(min_size=0, max_size=6))
    cut = data.draw(st.integers(0, 20))
    broken = data.draw(
        st.sampled_from(
            [
                whole[:at],
                whole[:at] + some + whole[at + len(some) :],
                whole[:at] + whole[at + cut :],
                whole[:at] + some + whole[at:],
            ]
        )
    )
    path = tmp_path_factory.mktemp("fuzz") / "cache.safetensors"
    path.write_bytes(broken)
    cache = policy(name)
    feed(EXACT, cache, TEXT[:3])
    try:
        cache.load(path)
    except CacheError:
        assert (cache.seen, cache.stored) == (3, 0 if name == "none" else 3)  # what it was
        return
    expected = policy(name)
    path.write_bytes(whole)
    expected.load(path)
    assert cache.seen == expected.seen == 9
    assert same(feed(EXACT, cache, TEXT[9:], 1), feed(EXACT, expected, TEXT[9:], 1))


@pytest.mark.parametrize("name", ALL)
def test_one_bit_of_a_saved_number_is_missed(name, tmp_path):
    path = tmp_path / "cache.safetensors"
    whole = saved(name)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    cache = policy(name)
    feed(EXACT, cache, TEXT[:3])
    with pytest.raises(CacheError, match=r"the saved cache is damaged.*SHA-256"):
        cache.load(path)
    assert cache.seen == 3
    path.write_bytes(whole)
    cache.load(path)
    assert cache.seen == 9


shapes = st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)))
arrays = st.builds(np.zeros, shapes, st.sampled_from(["f4", "f8", "i8", "i4", "?", "U3", "O"]))
names = st.sampled_from(["k.0", "ids", "has_kv.0", "positions.0", "step", "evicted"])
counts = st.one_of(st.text(max_size=3), st.sampled_from(["-1", "9" * 30, "0", "2"]))


@given(
    st.sampled_from(["full", "none", "residual 2 7", "scheduled", "h2o"]),
    st.dictionaries(names, st.one_of(arrays, st.none(), st.text(max_size=2))),
    counts,
    st.booleans(),
)
@example("none", {"ids": np.zeros(2, "i8")}, "2", True)
@example("h2o", {}, "0", True)
def test_a_state_put_together_by_hand_is_refused(name, tensors, seen, signed):
    """Even one that carries the right SHA-256; unless it is a state after all."""
    from minikv.saving import _digest

    cache = policy(name)
    metadata = cache.state()[1] | {"seen": seen}
    if signed:
        with contextlib.suppress(TypeError):
            metadata["sha256"] = _digest(seen, tensors)
    try:
        cache.load_state(tensors, metadata)
    except CacheError:
        assert cache.seen == 0
    else:
        assert name == "none"
        assert signed
        assert tensors["ids"].dtype == "i4"
        assert cache.seen == len(tensors["ids"]) == int(seen)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    cache = EXACT.new_cache()
    path = damaged(tmp_path, cache)
    old = path.read_bytes()
    feed(EXACT, cache, TEXT)

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CacheError, match=r"cannot save the cache to .*No space left"):
        cache.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_save_leaves_the_old_file_whole(step, tmp_path, monkeypatch):
    cache = EXACT.new_cache()
    path = damaged(tmp_path, cache)
    old = path.read_bytes()
    feed(EXACT, cache, TEXT)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_saving_where_nothing_can_be_written_is_refused(tmp_path):
    for path in (tmp_path / "missing" / "cache", tmp_path, "/", ""):
        with pytest.raises(CacheError, match="cannot save the cache to"):
            EXACT.new_cache().save(path)
    assert list(tmp_path.iterdir()) == []


# Interrupted calls


class Stop(Exception):
    pass


def stop_at(count: int):
    """A hook that raises at its `count`-th activation."""
    left = [count]

    def hook(name, value):
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        return value

    return hook


def interrupt(cache: Cache, ids, count: int) -> bool:
    """Whether a call of `ids` was interrupted at its `count`-th activation."""
    try:
        EXACT.forward([ids], [cache], hook=stop_at(count))
    except Stop:
        return True
    return False


@pytest.mark.parametrize("name", [*LOSSLESS, "scheduled"])
def test_an_interrupted_call_loses_nothing_that_is_lossless(name):
    start = policy(name)
    feed(EXACT, start, TEXT[:9], 5)
    count = 0
    while interrupt(cache := start.fork(), TEXT[3:12], count):
        twin = cache.fork()
        assert cache.seen == 9
        assert same(feed(EXACT, cache, TEXT[9:], 1), FULL[9:])
        twin.truncate(4)
        assert same(feed(EXACT, twin, TEXT[4:], 2), FULL[4:])
        count += 7  # passes all layers at all places, since 7 does not divide the 18 of a block
    assert count > 40


class Struck(Residual):
    """Interrupted from outside while it overwrites its ring, at one layer."""

    strikes = 0

    def _ring_slices(self, start, stop):
        for pair in super()._ring_slices(start, stop):
            yield pair
            if self.strikes and start >= self.seen:
                self.strikes -= 1
                if not self.strikes:
                    raise Stop


@pytest.mark.parametrize("strike", [1, 2, 3])
def test_residual_survives_an_interrupt_between_two_rows(strike):
    cache = Struck(EXACT.weights, budget=4, checkpoints="embedding")
    feed(EXACT, cache, TEXT[:9], 5)
    cache.strikes = strike
    with pytest.raises(Stop):
        EXACT.forward([TEXT[:2]], [cache])
    assert same(feed(EXACT, cache, TEXT[9:], 1), FULL[9:])


@pytest.mark.parametrize("name", EVICTING)
def test_an_interrupted_eviction_cache_says_so(name, tmp_path):
    start = policy(name)
    feed(EXACT, start, TEXT[:9], 5)
    before = start.state()[0]
    count = refused = 0
    while interrupt(cache := start.fork(), TEXT[9:12], count):
        count += 7
        try:
            cache.fork()
        except CacheError:
            refused += 1
            uses = (
                lambda: cache.state(),
                lambda: cache.save(tmp_path / "x"),
                lambda: cache.truncate(2),
                lambda: feed(EXACT, cache, [1]),
            )
            for use in uses:
                with pytest.raises(CacheError, match=r"was interrupted .*call reset\(\)"):
                    use()
            cache.reset()
            assert same(feed(EXACT, cache, TEXT[:5]), FULL[:5])
        else:  # the call had not come to the cache yet
            assert all((cache.state()[0][key] == before[key]).all() for key in before)
    assert refused >= 5  # of 8: the first cache.update comes after ten activations


@pytest.mark.parametrize("name", ALL)
def test_a_call_refused_at_the_door_leaves_every_cache_as_it_was(name):
    model = other_model(max_position_embeddings=16)
    cache, alone = policy(name, model), policy(name, model)
    for c in (cache, alone):
        feed(model, c, TEXT[:6])
    with pytest.raises(InputError, match="expected at most 16"):
        model.forward([TEXT[:2], TEXT[:17]], [cache, None])
    assert same(feed(model, cache, TEXT[6:16], 1), feed(model, alone, TEXT[6:16], 1))


# Wrong parameters


WRONG = [
    ("window", {"budget": 0}, "budget is 0, expected a whole number from 1 up"),
    ("window", {"budget": 2.0}, "budget is 2.0, expected a whole number"),
    ("window", {"budget": True}, "budget is True"),
    ("window", {"budget": None}, "budget is None"),
    ("window", {"budget": 129}, "budget is 129, expected at most the context of 128"),
    ("h2o", {"budget": 129}, "expected at most the context of 128"),
    ("window", {}, "budget"),
    ("window", {"budget": 3, "sinks": 2}, "sinks"),
    ("streaming_llm", {"budget": 4}, "budget is 4, expected more than the 4 sinks"),
    ("streaming_llm", {"budget": 4, "sinks": -1}, "sinks is -1, expected a whole number from 0"),
    ("h2o", {"budget": 4, "recent": 5}, "recent is 5, expected at most the budget of 4"),
    ("snapkv", {"budget": 4, "window": 5}, "window is 5, expected at most the budget of 4"),
    ("snapkv", {"budget": 4, "window": 0}, "window is 0"),
    ("snapkv", {"budget": 4, "kernel": 2}, "kernel is 2, expected an odd width"),
    ("tova", {"budget": -1}, "budget is -1"),
    ("residual", {"budget": -1}, "budget is -1, expected a whole number from 0 up"),
    ("residual", {"checkpoints": 0}, "checkpoints is 0"),
    ("residual", {"checkpoints": True}, "checkpoints is True"),
    ("residual", {"checkpoints": "some"}, "checkpoints is 'some', expected 'embedding'"),
    ("residual", {"checkpoints": [0, 3]}, "checkpoint layer 3 does not exist: the model has 3"),
    ("residual", {"checkpoints": [1, 2]}, "lack layer 0"),
    ("residual", {"checkpoints": []}, "lack layer 0"),
    ("residual", {"checkpoints": [0, -1]}, "a checkpoint layer is -1"),
    ("residual", {"checkpoints": [0, "x"]}, "a checkpoint layer is 'x'"),
    ("residual", {"checkpoints": 2.5}, "checkpoints is 2.5, expected a set"),
    ("residual", {"checkpoints": None}, "checkpoints is None, expected a set"),
    ("full", {"budget": 3}, "budget"),
    ("kv", {}, "cache policy 'kv' is unknown; choose from full, none"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), WRONG)
def test_wrong_parameters_are_named(name, parameters, message):
    with pytest.raises(CacheError) as caught:
        make_cache(name, EXACT.weights, **parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [-1, 10, 2**70, 1.5, "1", True])
@pytest.mark.parametrize("name", ["full", "residual 2 7", "tova"])
def test_a_cache_cannot_be_truncated_to_what_it_never_saw(name, length):
    cache = policy(name)
    feed(EXACT, cache, TEXT[:9])
    with pytest.raises(CacheError, match=r"the cache has seen 9|expected a whole number from 0 up"):
        cache.truncate(length)
    assert cache.seen == 9


def test_checkpoints_may_be_an_array():
    given = make_cache("residual", EXACT.weights, checkpoints=np.array([0, 2]))
    assert same(feed(EXACT, given, TEXT), FULL)
    assert given.layers_kept == (0, 2)


def test_a_schedule_that_keeps_nothing_is_refused():
    with pytest.raises(CacheError, match="the schedule says 'drop', expected kv, residual or both"):
        feed(EXACT, Scheduled(EXACT.weights, lambda *_: "drop"), TEXT)


# Single policies


def test_streaming_llm_outgrows_the_context():
    model = other_model(max_position_embeddings=16)
    cache = model.new_cache("streaming_llm", budget=8, sinks=2)
    feed(model, cache, TEXT[:12], 12)
    logits = feed(model, cache, TEXT[12:] * 3, *[1] * 35)
    assert cache.seen == 48
    assert np.isfinite(logits).all()
    original = model.new_cache("streaming_llm", budget=8, sinks=2, reposition=False)
    with pytest.raises(InputError, match="expected at most 16"):
        feed(model, original, TEXT, *[1] * 23)


def test_snapkv_keeps_what_is_generated():
    cache = SnapKV(EXACT.weights, budget=6, window=2)
    feed(EXACT, cache, TEXT[:15])
    assert cache.stored == 6
    feed(EXACT, cache, TEXT[15:], *[1] * 8)
    assert cache.stored == 6 + 9
    assert (cache.state()[0]["positions.1"][-11:, 0] == np.arange(13, 24)).all()


@pytest.mark.parametrize("name", ["h2o", "snapkv"])
def test_truncation_leaves_heads_that_keep_different_tokens_equally_long(name):
    cache = policy(name, budget=8)
    feed(EXACT, cache, TEXT, 20)
    before, differ = cache.state()[0], 0
    for length in range(24):
        twin = cache.fork()
        twin.truncate(length)
        after = twin.state()[0]
        for layer in range(3):
            earlier = (before[f"positions.{layer}"] < length).sum(axis=0)
            differ += len(set(earlier.tolist())) > 1
            for kind in ("positions", "k", "v"):
                rows = before[f"{kind}.{layer}"][: earlier.min()]
                assert (after[f"{kind}.{layer}"] == rows).all()
                assert len(after[f"{kind}.{layer}"]) == len(rows)
    assert differ


def test_the_newer_of_equals_stays():
    class Equal(Evicting):
        def priority(self, layer, positions):
            return np.zeros(positions.shape)

    cache = Equal(EXACT.weights, budget=4)
    feed(EXACT, cache, TEXT, 9, 1, 1)
    assert (cache.state()[0]["positions.1"] == np.arange(20, 24)[:, None]).all()


def test_snapkv_watches_by_half_the_budget_or_32():
    assert [SnapKV(EXACT.weights, budget=b).window for b in (1, 6, 100)] == [1, 3, 32]


def test_h2o_splits_its_budget_in_halves():
    assert [EXACT.new_cache("h2o", budget=b).recent for b in (1, 6, 7)] == [0, 3, 3]


@pytest.mark.parametrize("name", ALL)
def test_reset_forgets_everything(name):
    cache, fresh = policy(name), policy(name)
    feed(EXACT, cache, TEXT[10:], 4)
    cache.reset()
    assert (cache.seen, cache.stored, cache.nbytes) == (0, 0, 0)
    assert same(feed(EXACT, cache, TEXT, 9, 1), feed(EXACT, fresh, TEXT, 9, 1))


@pytest.mark.parametrize("name", ["under/a file/x", "n" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(name, tmp_path):
    (tmp_path / "under").mkdir()
    (tmp_path / "under" / "a file").touch()
    with pytest.raises(CacheError, match="cannot save the cache to"):
        EXACT.new_cache().save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["under"]


@pytest.mark.parametrize("name", EVICTING)
def test_a_policy_without_its_budget_says_what_it_needs(name):
    with pytest.raises(CacheError, match=f"'{name}' needs budget=N"):
        EXACT.new_cache(name)


def test_a_policy_is_a_name():
    with pytest.raises(CacheError, match=r"cache policy \[\] is unknown; choose from full"):
        EXACT.new_cache([])

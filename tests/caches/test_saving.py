"""The state of a cache: a copy that goes on where it was; anything else is refused in one line."""

from __future__ import annotations

import errno
import json
import os
import struct

import numpy as np
import pytest
from bits import assert_same_bits, same_bits
from feeding import ALL, EXACT, FULL, LAYERS, TEXT, feed, random_model
from hypothesis import example as instance
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

import minikv
from minikv.caches import Residual, Scheduled
from minikv.caches.saving import checksum, read_notes
from minikv.config import FULL as FULL_ATTENTION
from minikv.config import SLIDING
from minikv.errors import CacheError


@pytest.mark.parametrize("example", ALL, ids=str)
def test_a_state_is_a_copy(example):
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:9])
    tensors, metadata = cache.state()
    before = {key: array.copy() for key, array in tensors.items()}
    first = example.new(EXACT.weights)
    second = example.new(EXACT.weights)
    first.load_state(tensors, metadata)
    second.load_state(tensors, metadata)
    for changed in (cache, first):
        changed.truncate(4)
        feed(EXACT, changed, TEXT[12:14])
    for key, array in before.items():
        assert_same_bits(tensors[key], array, key)
    third = example.new(EXACT.weights)
    third.load_state(before, metadata)
    assert_same_bits(feed(EXACT, second, TEXT[9:], 1), feed(EXACT, third, TEXT[9:], 1))


def test_a_state_of_a_single_key_head_is_a_copy():
    """With one head, rows of the cache lie side by side, and a view of them would pass as well."""
    model = random_model(0, num_key_value_heads=1)
    cache = model.new_cache()
    model.forward([TEXT[:10]], [cache])
    tensors = cache.state()[0]
    before = {name: tensor.copy() for name, tensor in tensors.items()}
    cache.truncate(3)
    model.forward([TEXT[15:18]], [cache])
    for name, tensor in before.items():
        assert_same_bits(tensors[name], tensor, name)


def test_a_text_as_long_as_the_context_is_saved_and_no_longer_one():
    full = [*TEXT] * 5 + [*range(0, 97, 16), 5]  # the first and the last token among them
    cache = EXACT.new_cache("none")
    EXACT.forward([full], [cache], logits="none")
    tensors, metadata = cache.state()
    assert metadata["seen"] == "128"
    loaded = EXACT.new_cache("none")
    loaded.load_state(tensors, metadata)
    assert loaded.seen == 128
    for seen in ("129", "0128", "128.0", "-128", "\u0661"):
        with pytest.raises(CacheError, match="expected a number up to 128"):
            loaded.load_state(tensors, metadata | {"seen": seen})
    assert EXACT.new_cache("streaming_llm", budget=6).longest == 2**40


@pytest.mark.parametrize("example", ALL, ids=str)
@pytest.mark.parametrize("seen", [0, 9])
def test_a_saved_cache_goes_on_where_it_was(example, seen, tmp_path):
    cache = example.new(EXACT.weights)
    loaded = example.new(EXACT.weights)
    if seen:
        feed(EXACT, cache, TEXT[:seen], 6)
    cache.save(tmp_path / "cache.safetensors")
    feed(EXACT, loaded, TEXT[:3])  # is forgotten
    loaded.load(str(tmp_path / "cache.safetensors"))
    assert (loaded.seen, loaded.stored, loaded.nbytes) == (cache.seen, cache.stored, cache.nbytes)
    assert_same_bits(feed(EXACT, loaded, TEXT[seen:], 1), feed(EXACT, cache, TEXT[seen:], 1))


# The state of something else


FOREIGN = {
    "another policy": (lambda: EXACT.new_cache("none"), "policy 'none', expected 'full'"),
    "other weights": (lambda: random_model(seed=2).new_cache(), "model"),
    "another arithmetic": (
        lambda: random_model(arithmetic="float32").new_cache(),
        "arithmetic 'float32'",
    ),
    "another shape": (lambda: random_model(num_hidden_layers=2).new_cache(), "model"),
    "another rope_theta": (lambda: random_model(rope_theta=5.0).new_cache(), "model"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_the_state_of_something_else_is_refused(what, tmp_path):
    make, message = FOREIGN[what]
    path = tmp_path / "cache.safetensors"
    make().save(path)
    cache = EXACT.new_cache()
    feed(EXACT, cache, TEXT[:5])
    with pytest.raises(CacheError, match=message):
        cache.load(path)
    assert_same_bits(feed(EXACT, cache, TEXT[5:]), FULL[5:])  # the cache is what it was


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"budget": 5}, {"budget": 6}),
        ({"checkpoints": 2}, {"checkpoints": "every"}),
        ({"checkpoints": "tokens"}, {"checkpoints": "embedding"}),
    ],
)
def test_the_state_of_other_parameters_is_refused(mine, theirs):
    state = EXACT.new_cache("residual", **theirs).state()
    with pytest.raises(CacheError, match=r"the saved cache has parameters .*made as it was"):
        EXACT.new_cache("residual", **mine).load_state(*state)


def test_parameters_are_written_by_name():
    """Whatever their order in the policy, so that one more leaves old files readable."""
    metadata = EXACT.new_cache("streaming_llm", budget=6, sinks=2).state()[1]
    assert metadata["parameters"] == '{"budget": 6, "reposition": true, "sinks": 2}'


def test_equal_parameters_may_be_written_in_two_ways():
    saved = EXACT.new_cache("residual", budget=np.int64(5), checkpoints="every")
    feed(EXACT, saved, TEXT[:9])
    loaded = EXACT.new_cache("residual", budget=5, checkpoints={2, 1, np.int32(0)})
    loaded.load_state(*saved.state())
    assert loaded.seen == 9


@pytest.mark.parametrize("name", sorted(minikv.random_tensors(EXACT.config, 1)))
@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_model_that_differs_in_one_number_is_another(name, index):
    tensors = minikv.random_tensors(EXACT.config, 1)
    tensors[name].reshape(-1)[index] *= -1
    other = minikv.Model(minikv.build(EXACT.config, tensors, "exact"))
    with pytest.raises(CacheError, match="the saved cache has model"):
        EXACT.new_cache().load_state(*other.new_cache().state())


def test_a_model_of_the_same_numbers_is_the_same():
    same = minikv.Model(minikv.build(EXACT.config, minikv.random_tensors(EXACT.config, 1), "exact"))
    cache = same.new_cache()
    feed(same, cache, TEXT[:9])
    loaded = EXACT.new_cache()
    loaded.load_state(*cache.state())
    assert_same_bits(feed(EXACT, loaded, TEXT[9:]), FULL[9:])


def test_a_model_with_other_windows_is_another():
    """A mistral whose layers differ is another model than one whose layers all slide."""
    kinds = {"model_type": "mistral", "sliding_window": 2, "num_hidden_layers": 2}
    one = random_model(layer_types=(SLIDING, FULL_ATTENTION), **kinds)
    other = random_model(layer_types=(SLIDING, SLIDING), **kinds)
    with pytest.raises(CacheError, match="model"):
        other.new_cache().load_state(*one.new_cache().state())


# Damage


def of_type(name: str, size: int) -> bytes:
    """A safetensors file of one number, of a type that NumPy need not have."""
    tensor = {"dtype": name, "shape": [1], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {}, "k.0": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


NOT_CACHES = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a cache"),
    "a folder": lambda path: path.mkdir(),
    "a header that lies": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}" * 20),
    "other tensors": lambda path: save_file({"k.0": np.zeros(3, np.float32)}, path),
    "no tensors": lambda path: save_file({}, path, {"policy": "full"}),
    "a policy of two lines": lambda path: save_file({}, path, {"policy": "full\nwindow"}),
    "numbers of 8 bits": lambda path: path.write_bytes(of_type("F8_E4M3", 1)),
    "numbers of 16 bits": lambda path: path.write_bytes(of_type("BF16", 2)),
    "numbers of no type": lambda path: path.write_bytes(of_type("F3", 1)),
}


@pytest.mark.parametrize("what", NOT_CACHES)
@pytest.mark.parametrize("example", ALL, ids=str)
def test_a_file_that_is_no_saved_cache_is_refused(what, example, tmp_path):
    path = tmp_path / "cache.safetensors"
    NOT_CACHES[what](path)
    cache = example.new(EXACT.weights)
    with pytest.raises(CacheError) as caught:
        cache.load(path)
    assert "\n" not in str(caught.value)
    assert cache.seen == 0


SAVED: dict[str, bytes] = {}


def saved(example) -> bytes:
    """The file of a cache that has seen nine tokens."""
    if str(example) not in SAVED:
        cache = example.new(EXACT.weights)
        feed(EXACT, cache, TEXT[:9], 6)
        SAVED[str(example)] = save(*cache.state())
    return SAVED[str(example)]


@st.composite
def damages(draw, whole: bytes) -> bytes:
    """A file with bytes cut off, replaced, cut out or put in between."""
    start = draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(0, 400)))
    some = draw(st.binary(min_size=0, max_size=6))
    cut = draw(st.integers(0, 20))
    before = whole[:start]
    kinds = [
        before,
        before + some + whole[start + len(some) :],
        before + whole[start + cut :],
        before + some + whole[start:],
    ]
    return draw(st.sampled_from(kinds))


@given(example=st.sampled_from(ALL), data=st.data())
def test_a_damaged_file_is_refused_or_read_right(example, data, tmp_path_factory):
    """Bytes flipped, cut out, doubled or cut off: `CacheError`, or what was saved, never else."""
    whole = saved(example)
    path = tmp_path_factory.mktemp("fuzz") / "cache.safetensors"
    path.write_bytes(data.draw(damages(whole)))
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:3])
    before = (cache.seen, cache.stored, cache.nbytes)
    try:
        cache.load(path)
    except CacheError:
        assert (cache.seen, cache.stored, cache.nbytes) == before
        return
    expected = example.new(EXACT.weights)
    path.write_bytes(whole)
    expected.load(path)
    assert cache.seen == expected.seen == 9
    assert_same_bits(feed(EXACT, cache, TEXT[9:], 1), feed(EXACT, expected, TEXT[9:], 1))


@pytest.mark.parametrize("example", ALL, ids=str)
def test_one_bit_of_a_saved_number_is_missed(example, tmp_path):
    path = tmp_path / "cache.safetensors"
    whole = saved(example)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:3])
    with pytest.raises(CacheError, match=r"the saved cache is damaged.*SHA-256"):
        cache.load(path)
    assert cache.seen == 3
    path.write_bytes(whole)
    cache.load(path)
    assert cache.seen == 9


# States that carry the right SHA-256, and that no cache can have come to


def put(name: str, value: object, *index: object):
    """An edit: one number of one tensor."""

    def edit(tensors, metadata):
        tensors[name] = tensors[name].copy()
        tensors[name][index] = value

    return edit


def shaped(name: str, change):
    """An edit: a tensor replaced by what a function makes of it."""

    def edit(tensors, metadata):
        tensors[name] = change(tensors[name])

    return edit


def seen(written: object):
    """An edit: the number of tokens seen."""

    def edit(tensors, metadata):
        metadata["seen"] = written

    return edit


def without(name: str):
    def edit(tensors, metadata):
        del tensors[name]

    return edit


def with_more(name: str):
    def edit(tensors, metadata):
        tensors[name] = np.zeros(3, np.float32)

    return edit


def longer_than_the_context(tensors, metadata):
    """Everything fits together, but the model has no 129th position."""
    metadata["seen"] = "129"
    for name, array in tensors.items():
        tensors[name] = np.resize(array, (129, *array.shape[1:]))


TOKENS = {"checkpoints": "tokens"}
SINKS = {"budget": 5, "sinks": 2}
CRAFTED = {
    "fewer seen than rows": ("full", {}, seen("8")),
    "more seen than rows": ("full", {}, seen("10")),
    "a count below 0": ("full", {}, seen("-9")),
    "a count that is no number": ("full", {}, seen("nine")),
    "a count that is not whole": ("full", {}, seen("9.0")),
    "a count with a blank": ("full", {}, seen(" 9")),
    "a count in other digits": ("full", {}, seen("٩")),
    "no count": ("full", {}, seen("")),
    "a count beyond all integers": ("full", {}, seen("9" * 30)),
    "a count beyond what Python reads": ("full", {}, seen("9" * 5000)),
    "more seen than the context, full": ("full", {}, longer_than_the_context),
    "more seen than the context, none": ("none", {}, longer_than_the_context),
    "a tensor missing": ("full", {}, without("k.1")),
    "a tensor too many": ("full", {}, with_more("k.3")),
    "a tensor without axes": ("full", {}, shaped("k.0", lambda k: k[0, 0, 0])),
    "a tensor with an axis too many": ("full", {}, shaped("k.0", lambda k: k[None])),
    "a tensor in float64": ("full", {}, shaped("v.0", lambda v: v.astype(np.float64))),
    "a tensor of objects": ("full", {}, shaped("v.0", lambda v: v.astype(object))),
    "a list for a tensor": ("full", {}, shaped("v.0", lambda v: v.tolist())),
    "an id beyond the vocabulary": ("none", {}, put("ids", 97, 3)),
    "an id below 0": ("none", {}, put("ids", -1, 0)),
    "ids in int64": ("none", {}, shaped("ids", lambda ids: ids.astype(np.int64))),
    "a checkpoint's id beyond the vocabulary": ("residual", TOKENS, put("checkpoint.0", 97, 8)),
    "a checkpoint's id below 0": ("residual", TOKENS, put("checkpoint.0", -1, 8)),
    "a checkpoint with rows too few": ("residual", {}, shaped("checkpoint.0", lambda x: x[1:])),
    "a checkpoint with rows too many": (
        "residual",
        {},
        shaped("checkpoint.0", lambda x: np.concatenate([x, x])),
    ),
    "a checkpoint without axes": ("residual", {}, shaped("checkpoint.0", lambda x: x[0, 0])),
    "more K than the budget": (
        "residual",
        {"budget": 4},
        shaped("k.0", lambda k: np.concatenate([k, k])),
    ),
    "fewer K at one layer": ("residual", {"budget": 4}, shaped("k.1", lambda k: k[1:])),
    "K without axes": ("residual", {"budget": 4}, shaped("k.0", lambda k: k[0, 0, 0])),
    "a position that is not seen": ("window", {"budget": 5}, put("positions.0", 9, -1)),
    "a position below 0": ("window", {"budget": 5}, put("positions.0", -1, 0)),
    "positions that do not ascend": (
        "window",
        {"budget": 5},
        shaped("positions.1", lambda p: p[::-1]),
    ),
    "a position twice": ("window", {"budget": 5}, put("positions.0", 4, 1)),
    "heads that hold different tokens": ("window", {"budget": 5}, put("positions.0", 1, 0, 1)),
    "positions without axes": ("tova", {"budget": 5}, shaped("positions.0", lambda p: p[0, 0])),
    "more rows than the budget": ("window", {"budget": 9}, None),
    "a score that is NaN": ("h2o", {"budget": 5}, put("scores.2", np.nan, 1, 1)),
    "fewer scores than positions": ("h2o", {"budget": 5}, shaped("scores.2", lambda s: s[1:])),
    "a score that is NaN, beside sinks": ("streaming_llm", SINKS, put("scores.0", np.nan, 0, 0)),
    "a key made after its place in the text": ("streaming_llm", SINKS, put("made.0", 9, -1)),
    "a key made before its place": ("streaming_llm", SINKS, put("made.0", 0, -1)),
    "a key made beyond the context": ("streaming_llm", SINKS, put("made.0", 2**40, -1)),
    "a text longer than any": ("streaming_llm", SINKS, seen(str(2**62))),
}


def crafted(what: str):
    """A cache, and a state of nine tokens for it, edited and signed again."""
    policy, parameters, edit = CRAFTED[what]
    cache = EXACT.new_cache(policy, **parameters)
    feed(EXACT, cache, TEXT[:9], 6)
    tensors, metadata = cache.state()
    if edit is None:  # what a larger budget keeps, in the name of a smaller one
        cache = EXACT.new_cache(policy, budget=4)
        metadata |= cache.state()[1] | {"seen": "9"}
    else:
        edit(tensors, metadata)
    metadata["sha256"] = checksum(metadata["seen"], tensors)
    return cache, tensors, metadata


@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_state_is_refused(what):
    cache, tensors, metadata = crafted(what)
    before = (cache.seen, cache.stored, cache.nbytes)
    with pytest.raises(CacheError, match="the saved cache is damaged, save it anew: ") as caught:
        cache.load_state(tensors, metadata)
    assert "SHA-256" not in str(caught.value)  # it is not the signature that tells
    assert "\n" not in str(caught.value)
    assert (cache.seen, cache.stored, cache.nbytes) == before


@pytest.mark.parametrize(
    ("name", "value", "index"), [("step", -1, 0), ("has_kv.0", False, slice(None))]
)
def test_a_crafted_state_of_a_schedule_is_refused(name, value, index):
    cache = Scheduled(EXACT.weights, lambda step, layer, position: "kv")
    feed(EXACT, cache, TEXT[:9])
    tensors, metadata = cache.state()
    put(name, value, index)(tensors, metadata)
    metadata["sha256"] = checksum("9", tensors)
    with pytest.raises(CacheError, match="the saved cache is damaged, save it anew: "):
        cache.load_state(tensors, metadata)


def test_a_key_that_was_made_beyond_the_context_is_refused():
    """Also where the text has gone beyond it: there keys are made at places in the cache."""
    model = random_model(max_position_embeddings=16)
    cache = model.new_cache("streaming_llm", budget=8, sinks=2)
    feed(model, cache, TEXT, *[1] * 23)
    tensors, metadata = cache.state()
    for made, refused in ((15, False), (16, True)):
        tensors["made.1"][-1] = made
        metadata["sha256"] = checksum(metadata["seen"], tensors)
        again = model.new_cache("streaming_llm", budget=8, sinks=2)
        if refused:
            with pytest.raises(CacheError, match="made where it cannot have been made"):
                again.load_state(tensors, metadata)
        else:
            again.load_state(tensors, metadata)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([5, 6, 7, 8], None),
        ([5, 6, 7, 9], "it holds positions outside the 9 tokens seen"),
        ([-1, 6, 7, 8], "it holds positions outside the 9 tokens seen"),
        ([5, 6, 6, 8], "its positions do not ascend"),
        ([5, 7, 6, 8], "its positions do not ascend"),
    ],
)
def test_positions_are_those_of_tokens_seen_and_ascend(positions, message):
    cache = EXACT.new_cache("window", budget=4)
    feed(EXACT, cache, TEXT[:9])
    tensors, metadata = cache.state()
    tensors["positions.1"][:] = np.array(positions)[:, None]
    metadata["sha256"] = checksum("9", tensors)
    if message is None:
        cache.load_state(tensors, metadata)
        return
    with pytest.raises(CacheError, match=message):
        cache.load_state(tensors, metadata)


def test_the_checksum_is_of_every_byte_name_shape_and_type():
    rng = np.random.default_rng(0)
    large = rng.normal(size=(300, 500)).astype(np.float32)
    tensors = {"k.0": large, "k.10": np.arange(6, dtype=np.int32)}
    others = [
        {"K.0": large, "k.10": tensors["k.10"]},
        {"k.0": large, "k.2": tensors["k.10"]},
        {"k.0": large.reshape(500, 300), "k.10": tensors["k.10"]},
        {"k.0": large.view(np.int32), "k.10": tensors["k.10"]},
        {"k.0": tensors["k.10"], "k.10": large},
    ]
    for place in (0, 16_383, 16_384, 65_536, 149_999, *rng.integers(0, large.size, 20)):
        changed = large.copy()
        changed.view(np.uint32).reshape(-1)[place] ^= 1
        others.append(tensors | {"k.0": changed})
    digests = {checksum("5", tensors), checksum("6", tensors)}
    digests |= {checksum("5", other) for other in others}
    assert len(digests) == 2 + len(others)
    assert checksum("5", dict(reversed(tensors.items()))) == checksum("5", tensors)


@pytest.mark.parametrize("example", ALL, ids=str)
def test_a_state_that_is_signed_again_and_not_edited_is_read(example):
    """The control of the tests above."""
    cache = example.new(EXACT.weights)
    feed(EXACT, cache, TEXT[:9], 6)
    tensors, metadata = cache.state()
    metadata["sha256"] = checksum("9", tensors)
    loaded = example.new(EXACT.weights)
    loaded.load_state(tensors, metadata)
    assert_same_bits(feed(EXACT, loaded, TEXT[9:], 1), feed(EXACT, cache, TEXT[9:], 1))


def test_what_is_forgotten_is_whole_chunks_and_no_more_than_allowed():
    model = random_model(model_type="mistral", sliding_window=3, layer_types=(SLIDING,) * LAYERS)
    cache = model.new_cache("residual", budget=2, forget=True, chunk=4)
    feed(model, cache, TEXT)
    tensors, metadata = cache.state()
    rows = tensors["checkpoint.0"]
    assert len(rows) < len(TEXT)
    for left in range(len(rows)):
        tensors["checkpoint.0"] = rows[len(rows) - left :]
        metadata["sha256"] = checksum(metadata["seen"], tensors)
        with pytest.raises(CacheError, match=f"it has {left} rows of checkpoint 0, too few"):
            cache.load_state(tensors, metadata)


def test_as_many_rows_as_later_tokens_depend_on_are_enough():
    model = random_model(model_type="mistral", sliding_window=3, layer_types=(SLIDING,) * LAYERS)
    cache = model.new_cache("residual", budget=2, forget=True, chunk=1)
    feed(model, cache, TEXT)
    tensors, metadata = cache.state()
    assert len(tensors["checkpoint.0"]) == cache.rows_needed()[0] < len(TEXT)
    loaded = model.new_cache("residual", budget=2, forget=True, chunk=1)
    loaded.load_state(tensors, metadata)
    assert_same_bits(model.forward([[7]], [loaded]), model.forward([[7]], [cache]))


shapes = st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)))
arrays = st.builds(np.zeros, shapes, st.sampled_from(["f4", "f8", "i8", "i4", "?", "U3", "O"]))
names = st.sampled_from(["k.0", "ids", "has_kv.0", "positions.0", "step", "evicted"])
counts = st.one_of(st.text(max_size=3), st.sampled_from(["-1", "9" * 30, "0", "2"]))
NONE = next(example for example in ALL if example.policy.policy == "none")
H2O = next(example for example in ALL if example.policy.policy == "h2o")


@given(
    st.sampled_from(ALL),
    st.dictionaries(names, st.one_of(arrays, st.none(), st.text(max_size=2))),
    counts,
    st.booleans(),
)
@instance(NONE, {"ids": np.zeros(2, "i8")}, "2", True)
@instance(NONE, {"ids": np.zeros(2, "i4")}, "2", True)
@instance(H2O, {}, "0", True)
def test_a_state_put_together_by_hand_is_refused(example, tensors, seen, signed):
    """Even one that carries the right SHA-256; unless it is a state after all."""
    cache = example.new(EXACT.weights)
    metadata = cache.state()[1] | {"seen": seen}
    if signed:
        metadata["sha256"] = checksum(seen, tensors)
    try:
        cache.load_state(tensors, metadata)
    except CacheError:
        assert cache.seen == 0
    else:
        assert example is NONE
        assert signed
        assert tensors["ids"].dtype == "i4"
        assert cache.seen == len(tensors["ids"]) == int(seen)


# Files


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    cache = EXACT.new_cache()
    path = tmp_path / "cache.safetensors"
    cache.save(path)
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
    path = tmp_path / "cache.safetensors"
    cache.save(path)
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


def test_notes_lie_beside_a_cache_that_does_not_know_them(tmp_path):
    cache = EXACT.new_cache("none")
    feed(EXACT, cache, TEXT[:5])
    cache.save(tmp_path / "noted", {"of": "a text", "policy": "a note's own name"})
    cache.save(tmp_path / "plain")
    assert read_notes(tmp_path / "noted") == {"of": "a text", "policy": "a note's own name"}
    assert read_notes(tmp_path / "plain") == {}
    loaded = EXACT.new_cache("none")
    loaded.load(tmp_path / "noted")
    assert_same_bits(feed(EXACT, loaded, TEXT[5:7]), FULL[5:7])
    with pytest.raises(CacheError, match="is not a saved cache"):
        read_notes(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system that has pipes with names")
def test_what_is_no_plain_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CacheError, match="it is no plain file"):
        EXACT.new_cache().save(pipe)
    assert pipe.is_fifo()
    with pytest.raises(CacheError, match="is not a saved cache: there is no such file"):
        EXACT.new_cache().load(pipe)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("name", ["under/a file/x", "n" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(name, tmp_path):
    (tmp_path / "under").mkdir()
    (tmp_path / "under" / "a file").touch()
    with pytest.raises(CacheError, match="cannot save the cache to") as caught:
        EXACT.new_cache().save(tmp_path / name)
    assert not str(caught.value).endswith("None")
    assert [path.name for path in tmp_path.iterdir()] == ["under"]


def test_two_ways_of_keeping_a_text_have_different_states():
    """The control of the comparisons of states: a state says what it holds."""
    caches = [Residual(EXACT.weights, budget=budget) for budget in (3, 4)]
    for cache in caches:
        feed(EXACT, cache, TEXT[:9])
    first, second = (cache.state()[0] for cache in caches)
    assert first.keys() == second.keys()
    for layer in range(LAYERS):
        assert not same_bits(first[f"k.{layer}"], second[f"k.{layer}"])

"""Whatever a folder holds, the loader answers with float32 weights or with one of our errors."""

from __future__ import annotations

import copy
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import SMALL, layout, small_tensors, write, write_shards
from hypothesis import event, example, given
from hypothesis import strategies as st

from minikv.config import ModelConfig
from minikv.errors import ConfigError, WeightsError
from minikv.weights import expected_shapes, load_tensors
from minikv.weights.folder import MEMORY_MULTIPLE

FIXED = 300_000  # bytes that a load may take whatever the file's size: one mask, Python's objects
HEADER, DATA = layout(small_tensors())
with tempfile.TemporaryDirectory() as _folder:
    VALID = write(Path(_folder) / "model.safetensors", HEADER, DATA).read_bytes()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "__metadata__", *HEADER]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)

index_values = json_values | st.sampled_from(
    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "../x.safetensors"]
)


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """A valid file with bytes flipped, cut out, repeated, moved or inserted."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "set", "cut", "end", "splice", "insert"]))
        # Most damage falls on the header, where it matters.
        limit = draw(st.sampled_from([8, 300, len(VALID)]))
        at = draw(st.integers(0, min(limit, len(data))))
        size = draw(st.integers(1, 64))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + size]
        elif kind == "end":
            del data[at:]
        elif kind == "splice":
            source = draw(st.integers(0, len(data)))
            data[at:at] = data[source : source + size]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=64))
    return bytes(data)


@st.composite
def rewritten_headers(draw: st.DrawFn) -> bytes:
    """A file whose header is valid JSON, with some of its values replaced."""
    header: dict[str, Any] = json.loads(json.dumps(HEADER))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from([*HEADER, "__metadata__", "lm_head.weight", "other"]))
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", None]))
        near = st.lists(st.integers(-1, len(DATA) + 4), min_size=2, max_size=2)
        value = draw(json_values | near | st.sampled_from(list(HEADER.values())))
        value = copy.deepcopy(value)  # what is drawn from HEADER must not be written to
        if field is None or not isinstance(header.get(name), dict):
            header[name] = value
        else:
            header[name][field] = value
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + draw(st.sampled_from([DATA, DATA[:-4], b""]))


def outcome(load: Callable[[], dict[str, np.ndarray]], size: int) -> str:
    """'loaded' or 'refused'; anything else that happens is a failure."""
    tracemalloc.start()
    try:
        tensors = load()
    except (WeightsError, ConfigError) as error:
        tensors, said = None, str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak <= MEMORY_MULTIPLE * size + FIXED
    if tensors is None:
        assert "\n" not in said
        assert 0 < len(said) < 1000
        return "refused"
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(SMALL)
    assert all(t.dtype == np.float32 and np.isfinite(t).all() for t in tensors.values())
    return "loaded"


def try_file(content: bytes) -> str:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.safetensors").write_bytes(content)
        return outcome(lambda: load_tensors(name, SMALL), len(content))


@pytest.mark.timeout(600)
@given(damaged_bytes())
@example(VALID)
def test_damaged_bytes_give_weights_or_our_error(content):
    event(try_file(content))


@pytest.mark.timeout(600)
@given(rewritten_headers())
def test_rewritten_headers_give_weights_or_our_error(content):
    event(try_file(content))


@pytest.mark.timeout(600)
@given(st.binary(max_size=200) | index_values.map(lambda v: json.dumps(v).encode()), st.booleans())
def test_any_index_gives_weights_or_our_error(content, as_weight_map):
    with tempfile.TemporaryDirectory() as name:
        placed = write_shards(Path(name), small_tensors(), 2)
        index = Path(name) / "model.safetensors.index.json"
        if as_weight_map:
            try:
                value = json.loads(content)
            except ValueError:
                value = None
            placed["model.norm.weight"] = value
            content = json.dumps({"weight_map": placed}).encode()
        index.write_bytes(content)
        size = sum(path.stat().st_size for path in Path(name).iterdir())
        event(outcome(lambda: load_tensors(name, SMALL), size))


@pytest.mark.timeout(600)
@given(st.dictionaries(st.sampled_from(sorted(SMALL.to_dict())), json_values, max_size=3))
def test_any_configuration_gives_weights_or_our_error(changes):
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.safetensors").write_bytes(VALID)
        path = Path(name) / "config.json"
        path.write_text(json.dumps(SMALL.to_dict() | changes))

        def load() -> dict[str, np.ndarray]:
            return load_tensors(name, ModelConfig.from_file(path))

        event(outcome(load, len(VALID) + path.stat().st_size))


def test_the_valid_file_loads_so_that_refusals_mean_something():
    assert try_file(VALID) == "loaded"
    flipped = bytearray(VALID)
    flipped[-1] ^= 0x80  # the sign of the last weight: other weights, but weights
    assert try_file(bytes(flipped)) == "loaded"
    assert try_file(VALID[:-1]) == "refused"


@pytest.mark.slow
def test_a_loader_that_trusts_its_file_fails_this_fuzzing():
    def trusting(content: bytes) -> dict[str, np.ndarray]:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        return {
            name: np.frombuffer(
                content,
                "<f4",
                offset=8 + length + entry["data_offsets"][0],
                count=int(np.prod(entry["shape"])),
            ).reshape(entry["shape"])
            for name, entry in header.items()
        }

    @given(damaged_bytes())
    def fuzz(content):
        outcome(lambda: trusting(content), len(content))

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - one or several failures
        fuzz()
    assert not isinstance(caught.value, (WeightsError, ConfigError))

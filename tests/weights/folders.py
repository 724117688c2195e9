"""A small model and its files, written without any library, for the tests of loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from bits import same_bits

from minikv.config import ModelConfig, expected_shapes

EMBEDDING = "model.embed_tokens.weight"
LAST = "model.norm.weight"


def small(**changes: Any) -> ModelConfig:
    """A model of one block and 7 tokens, with changes."""
    numbers: dict[str, Any] = {
        "vocab_size": 7,
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 2,
    }
    return ModelConfig(**(numbers | changes))


SMALL = small()


def small_tensors(config: ModelConfig = SMALL, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.standard_normal(shape, dtype=np.float32)
        for name, shape in expected_shapes(config).items()
    }


def layout(tensors: dict[str, np.ndarray], dtype: str = "F32") -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file, made independently of any library."""
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = {
            "F32": lambda t: t.astype("<f4").tobytes(),
            "F16": lambda t: t.astype("<f2").tobytes(),
            "BF16": lambda t: (t.view(np.uint32) >> 16).astype("<u2").tobytes(),
            "F64": lambda t: t.astype("<f8").tobytes(),
            "I64": lambda t: t.astype("<i8").tobytes(),
            "U8": lambda t: t.astype("u1").tobytes(),
            "BOOL": lambda t: t.astype("u1").tobytes(),
        }[dtype](tensor)
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    return header, data


def write(path: Path, header: Any, data: bytes, pad: int = 8) -> Path:
    """A safetensors file of a header, an object or its bytes, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % pad)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_shards(folder: Path, tensors: dict[str, np.ndarray], count: int) -> dict[str, str]:
    """Tensors in several files and their index; returns which holds what."""
    names = sorted(tensors)
    placed = {}
    for shard in range(count):
        part = {name: tensors[name] for name in names[shard::count]}
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        write(folder / file, *layout(part))
        placed |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return placed


def same_tensors(got: Any, expected: Any) -> bool:
    """Whether two sets of tensors have the same names and bits, float32."""
    return set(got) == set(expected) and all(
        got[name].dtype == np.float32 and same_bits(got[name], expected[name]) for name in expected
    )


def assert_same_tensors(got: Any, expected: Any) -> None:
    """Fail unless two sets of tensors have the same names and bits, float32."""
    assert set(got) == set(expected)
    differ = [name for name in expected if not same_bits(got[name], expected[name])]
    assert not differ
    assert all(got[name].dtype == np.float32 for name in expected)

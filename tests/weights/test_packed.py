"""Weights that MLX quantised: every bit of what the formula gives; bad files are refused."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from fuzz import mutated_bytes, mutated_json
from safetensors import safe_open

import minikv
from minikv.config import FULL, SLIDING, ModelConfig, expected_shapes
from minikv.config_json import Quantization, quantization
from minikv.errors import ConfigError, MinikvError, WeightsError
from minikv.weights import load_tensors, save_folder
from minikv.weights.packed import Packed

GROUP = 8
SETTINGS = {"group_size": GROUP, "bits": 4}


def bfloat16(x: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers."""
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


STORED = {
    "F32": lambda x: x.astype("<f4"),
    "F16": lambda x: x.astype("<f2"),
    "BF16": bfloat16,
}


def widened(x: np.ndarray) -> np.ndarray:
    """What is stored, as float32."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32)


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes packed into words, weight by weight in Python: the oracle of the layout."""
    per_word = 32 // bits
    packed = np.zeros((codes.shape[0], codes.shape[1] // per_word), dtype=np.uint32)
    for row, line in enumerate(codes.tolist()):
        for column, code in enumerate(line):
            packed[row, column // per_word] |= np.uint32(code << (bits * (column % per_word)))
    return packed


def by_the_formula(codes, scales, biases, group: int) -> np.ndarray:
    """scale * q + bias in fractions, each rounded once to float32."""
    matrix = np.empty(codes.shape, dtype=np.float32)
    for (row, column), code in np.ndenumerate(codes):
        scale, bias = (Fraction(float(x[row, column // group])) for x in (scales, biases))
        exact = scale * int(code) + bias
        matrix[row, column] = np.float32(float(exact))  # float64 holds it: asserted
        assert Fraction(float(exact)) == exact
    return matrix


def quantised(
    config: ModelConfig, dtype: str = "BF16", bits: int = 4, seed: int = 0
) -> tuple[dict[str, tuple[str, np.ndarray]], dict[str, np.ndarray]]:
    """Tensors as MLX's file holds them, by their types, and as they are by the formula."""
    rng = np.random.default_rng(seed)
    stored: dict[str, tuple[str, np.ndarray]] = {}
    plain: dict[str, np.ndarray] = {}
    for name, shape in expected_shapes(config).items():
        if len(shape) == 1:
            stored[name] = (dtype, STORED[dtype](rng.normal(size=shape)))
            plain[name] = widened(stored[name][1])
            continue
        groups = (shape[0], shape[1] // GROUP)
        codes = rng.integers(0, 2**bits, shape)
        scales, biases = (STORED[dtype](rng.normal(size=groups) / 50) for _ in range(2))
        stem = name.removesuffix(".weight")
        stored[name] = ("U32", words(codes, bits))
        stored[f"{stem}.scales"] = (dtype, scales)
        stored[f"{stem}.biases"] = (dtype, biases)
        plain[name] = by_the_formula(codes, widened(scales), widened(biases), GROUP)
    return stored, plain


def write(
    folder: Path, config: ModelConfig, stored: dict[str, tuple[str, np.ndarray]], **keys: Any
) -> Path:
    """A folder with ``config.json`` and a safetensors file, written by hand."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    data = b""
    for name, (dtype, array) in stored.items():
        raw = np.ascontiguousarray(array).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    file = len(text).to_bytes(8, "little") + text + data
    (folder / "model.safetensors").write_bytes(file)
    contents = config.to_dict() | {"quantization": SETTINGS} | keys
    (folder / "config.json").write_text(json.dumps(contents), encoding="utf-8")
    return folder


def config_of(**changes: Any) -> ModelConfig:
    numbers = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "vocab_size": 19}
    return minikv.tiny_config(**(numbers | changes))


FAMILIES = {
    "llama": {},
    "untied": {"tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2"},
    "gemma3_text": {
        "model_type": "gemma3_text",
        "layer_types": (SLIDING, FULL),
        "sliding_window": 4,
        "rope_local_base_freq": 100.0,
    },
}


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_weight_is_the_formulas_number_rounded_once(dtype, bits, tmp_path):
    config = config_of()
    stored, plain = quantised(config, dtype, bits)
    write(tmp_path, config, stored, quantization={"group_size": GROUP, "bits": bits})
    loaded = load_tensors(tmp_path, config)
    assert loaded.keys() == plain.keys()
    for name, expected in plain.items():
        assert_same_bits(loaded[name], expected, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantised_folder_is_the_model_of_its_weights(family, tmp_path):
    config = config_of(**FAMILIES[family])
    stored, plain = quantised(config)
    packed = minikv.load(write(tmp_path / "packed", config, stored), "exact")
    other = minikv.load(save_folder(tmp_path / "plain", config, plain), "exact")
    assert_same_bits(packed.logits([1, 2, 3]), other.logits([1, 2, 3]))
    assert packed.weights.identity == other.weights.identity


def test_what_mlx_writes_twice_is_read_once(tmp_path):
    config = config_of()
    stored, plain = quantised(config)
    write(tmp_path, config, stored, quantization_config=SETTINGS)
    assert minikv.ModelConfig.from_folder(tmp_path).hidden_size == 32
    assert load_tensors(tmp_path, config).keys() == plain.keys()


def test_the_language_half_of_a_gemma_that_sees_is_unpacked(tmp_path):
    config = config_of(**FAMILIES["gemma3_text"])
    stored, plain = quantised(config)
    seeing = {f"language_model.{name}": value for name, value in stored.items()}
    seeing["vision_tower.patch.weight"] = ("U32", np.zeros((4, 2), np.uint32))
    write(tmp_path, config, seeing)
    text = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    told = {"model_type": "gemma3", "text_config": text, "quantization": text.pop("quantization")}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    loaded = load_tensors(tmp_path, minikv.ModelConfig.from_folder(tmp_path))
    assert_same_bits(loaded["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])


def test_a_matrix_that_is_not_packed_may_stand_among_those_that_are(tmp_path):
    config = config_of()
    stored, plain = quantised(config)
    name = "model.layers.0.self_attn.q_proj"
    del stored[f"{name}.scales"], stored[f"{name}.biases"]
    stored[f"{name}.weight"] = ("F32", plain[f"{name}.weight"])
    loaded = load_tensors(write(tmp_path, config, stored), config)
    assert_same_bits(loaded[f"{name}.weight"], plain[f"{name}.weight"])


def test_rows_are_unpacked_block_by_block_without_a_change(monkeypatch):
    rng = np.random.default_rng(0)
    packed = Packed(
        rng.integers(0, 2**32, (9, 4), dtype=np.uint32),
        rng.normal(size=(9, 2)).astype(np.float32),
        rng.normal(size=(9, 2)).astype(np.float32),
        4,
    )
    whole = packed.unpacked()
    monkeypatch.setattr("minikv.weights.packed.ROWS", 2)
    assert_same_bits(packed.unpacked(), whole)


# What MLX wrote

MLX = Path(__file__).parents[1] / "fixtures" / "mlx"  # by MLX 0.32.4: tests/make_mlx.py


def test_what_mlx_quantised_and_saved_has_the_weights_that_mlx_makes_of_it():
    """A scale of 8 bits times a code of 4 is exact in float32: MLX rounds the sum once, as here."""
    loaded = load_tensors(MLX, ModelConfig.from_folder(MLX))
    with safe_open(MLX / "weights.safetensors", "numpy") as file:
        assert file.metadata()["mlx"] == "0.32.4"
        assert loaded.keys() == set(file.keys())
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            assert_same_bits(loaded[name], file.get_tensor(name), name)
    assert minikv.load(MLX, "exact").logits([1, 2, 3]).shape == (3, 24)


def test_another_order_of_the_codes_in_a_word_would_not_be_what_mlx_makes():
    """The control: the first weight in the highest bits."""
    config = ModelConfig.from_folder(MLX)
    name = "model.embed_tokens.weight"
    right = load_tensors(MLX, config)[name]
    backwards = right.reshape(len(right), -1, 8)[..., ::-1].reshape(right.shape)
    with safe_open(MLX / "weights.safetensors", "numpy") as file:
        assert (file.get_tensor(name) != backwards).any()


# What is refused

Q = "model.layers.0.self_attn.q_proj"


def without(kind: str):
    return lambda stored: stored.pop(f"{Q}.{kind}")


def replaced(kind: str, change):
    def apply(stored):
        dtype, array = stored[f"{Q}.{kind}"]
        stored[f"{Q}.{kind}"] = change(dtype, array)

    return apply


DAMAGED = {
    "no scales": (without("scales"), "lacks '.*q_proj'.scales"),
    "no biases": (without("biases"), "lacks '.*q_proj'.biases"),
    "scales of fewer groups": (
        replaced("scales", lambda dtype, x: (dtype, x[:, :-1])),
        r"scales of '.*q_proj.weight' have shape \(32, 3\), expected \(32, 4\): one for each 8 of",
    ),
    "biases of fewer rows": (
        replaced("biases", lambda dtype, x: (dtype, x[1:])),
        r"biases of .* have shape \(31, 4\)",
    ),
    "scales that are whole numbers": (
        replaced("scales", lambda dtype, x: ("U32", x.astype(np.uint32))),
        "scales holds whole numbers",
    ),
    "a scale that is no number": (
        replaced("scales", lambda dtype, x: (dtype, np.full_like(x, 0x7FC0))),
        "not finite",
    ),
    "a scale that is too large": (
        replaced("scales", lambda dtype, x: (dtype, np.full_like(x, 0x7F7F))),
        "too large for float32",
    ),
    "a scale and a bias that are too large together": (
        lambda stored: (
            replaced("scales", lambda dtype, x: (dtype, np.full_like(x, 0x7D80)))(stored),
            replaced("biases", lambda dtype, x: (dtype, np.full_like(x, 0x7F00)))(stored),
        ),
        "too large for float32",
    ),
    "words in a line": (
        replaced("weight", lambda dtype, x: (dtype, x.reshape(-1))),
        "has 1 dimensions, expected a packed matrix",
    ),
    "fewer words": (
        replaced("weight", lambda dtype, x: (dtype, x[:, :-1])),
        r"scales of .* have shape \(32, 4\), expected \(32, 3\)",
    ),
    "an odd scale": (
        lambda stored: stored.update({"model.norm.scales": ("F32", np.ones(3, np.float32))}),
        "model.norm.scales, which config.json does not ask for",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_by_the_tensor(damage, tmp_path):
    config = config_of()
    stored, _ = quantised(config)
    change, told = DAMAGED[damage]
    change(stored)
    with pytest.raises(WeightsError, match=told) as caught:
        load_tensors(write(tmp_path, config, stored), config)
    assert "\n" not in str(caught.value)


def test_packed_weights_without_a_word_in_config_json_are_refused(tmp_path):
    config = config_of()
    write(tmp_path, config, quantised(config)[0], quantization=None)
    with pytest.raises(WeightsError, match=r"as 'U32', expected .*'quantization' in config\.json"):
        load_tensors(tmp_path, config)


def test_groups_that_do_not_divide_a_row_are_refused(tmp_path):
    config = config_of()
    write(tmp_path, config, quantised(config)[0], quantization={"group_size": 5, "bits": 4})
    with pytest.raises(WeightsError, match=r"expected a multiple of quantization\.group_size"):
        load_tensors(tmp_path, config)


def test_another_number_of_bits_than_the_files_does_not_fit(tmp_path):
    config = config_of()
    write(tmp_path, config, quantised(config)[0], quantization={"group_size": GROUP, "bits": 8})
    with pytest.raises(WeightsError, match="have shape"):
        load_tensors(tmp_path, config)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"group_size": 64, "bits": 3}, r"expected MLX's group_size and bits \(2, 4 or 8\)"),
        ({"group_size": 64, "bits": 5}, r"expected MLX's group_size and bits \(2, 4 or 8\)"),
        ({"group_size": 64, "bits": 6}, r"expected MLX's group_size and bits \(2, 4 or 8\)"),
        ({"group_size": 64, "bits": 4.0}, "expected MLX's"),
        ({"group_size": 64, "bits": [4]}, "expected MLX's"),
        ({"group_size": 0, "bits": 4}, "expected MLX's"),
        ({"bits": 4}, "expected MLX's"),
        ("4-bit", "expected MLX's"),
        (SETTINGS | {"mode": "mxfp4"}, "only 'affine' is built"),
        (SETTINGS | {"model.layers.0.mlp": {"bits": 8}}, "settings of its own"),
    ],
)
def test_another_quantisation_is_refused_when_the_configuration_is_read(told, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_dict(config_of().to_dict() | {"quantization": told})


def test_two_places_that_say_two_things_are_refused():
    contents = config_of().to_dict() | {"quantization": SETTINGS}
    assert quantization(contents) == Quantization(GROUP, 4)
    with pytest.raises(ConfigError, match="quantization_config"):
        ModelConfig.from_dict(contents | {"quantization_config": SETTINGS | {"bits": 8}})


def test_a_mutated_file_loads_or_is_refused_in_a_line(tmp_path):
    """Header, bytes and the words of config.json, each spoiled at random."""
    config = config_of()
    write(tmp_path, config, quantised(config)[0])
    whole = (tmp_path / "model.safetensors").read_bytes()
    contents = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    refused = []
    for seed in range(150):
        rng = random.Random(seed)
        told = contents
        file = whole
        if seed % 3 == 0:
            told = contents | {"quantization": mutated_json(rng, SETTINGS)}
        elif seed % 3 == 1:
            text = json.dumps(mutated_json(rng, header)).encode("utf-8", "surrogatepass")
            file = len(text).to_bytes(8, "little") + text + data
        else:
            file = mutated_bytes(rng, whole)
        (tmp_path / "model.safetensors").write_bytes(file)
        (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
        try:
            loaded = load_tensors(tmp_path, ModelConfig.from_folder(tmp_path))
            assert all(np.isfinite(tensor).all() for tensor in loaded.values())
        except MinikvError as error:
            refused.append(str(error))
    assert 75 < len(refused) < 150
    assert not [told for told in refused if "\n" in told]

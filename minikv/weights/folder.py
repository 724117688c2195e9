"""Model folders in Hugging Face layout: ``config.json`` and safetensors weights.

A safetensors file is eight bytes (the header's length, little-endian), a JSON header that gives
each tensor's dtype, shape and byte range, and the tensors' bytes without gaps. The safetensors
package checks a header against its file; the tensors are then mapped here, because the package
copies them, and does not know bfloat16 without torch.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..config import ModelConfig, expected_shapes
from ..errors import ConfigError, WeightsError

MEMORY_MULTIPLE = 64
"""Peak memory of opening files, per byte of them, at most: for a file that is nothing but JSON,
where each Python object stands for two or three bytes."""

_STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # bfloat16: the upper half of a float32
_ROTARY_BUFFER = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")
_TEXT = re.compile(r"^language_model\.(?=model\.|lm_head\.)")
_SHARD = re.compile(r"[\w-][\w.-]{,200}\.safetensors", re.A)


def load_tensors(folder: str | Path, config: ModelConfig) -> Mapping[str, np.ndarray]:
    """Open a folder's weights as float32 arrays.

    float32 tensors are read-only views of the memory-mapped file: nothing is copied, and pages
    that are shared between processes count once. float16 and bfloat16 tensors are widened when
    they are asked for. The files must not be cut short while the arrays are in use.

    A shard index may name only plain files of the folder, and a link must end in the folder or
    in the ``models--*/blobs`` of a hub cache, which is how the hub lays out its snapshots.
    Rotary ``inv_freq`` buffers of old checkpoints are passed over, and so is what Gemma 3 holds
    beside its text model (``vision_tower``, ``multi_modal_projector``). ``lm_head.weight`` in a
    checkpoint with tied embeddings is passed over where it equals the embedding, bit for bit.

    Parameters
    ----------
    folder : str or Path
        Holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.
    config : ModelConfig
        The shape that the weights must have.

    Returns
    -------
    mapping of str to ndarray
        Exactly the names and shapes of ``expected_shapes(config)``, all float32 and finite.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or a tensor is missing, extra, of another shape or
        dtype, or not finite; the message names the file or tensor.
    """
    found = _open_checkpoint(Path(folder))
    if config.model_type == "gemma3_text":
        found = _text_half(found)
    stored = {name: raw for name, raw in found.items() if not _ROTARY_BUFFER.fullmatch(name)}
    head = stored.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    check_shapes({name: raw.shape for name, raw in stored.items()}, config)
    for name, raw in stored.items():
        _check_finite(name, raw)
    tensors = _Tensors(stored)
    if head is not None:
        output, embedding = _as_float32(head), tensors["model.embed_tokens.weight"]
        if not np.array_equal(output.view(np.uint32), embedding.view(np.uint32)):
            raise WeightsError(
                "lm_head.weight differs from model.embed_tokens.weight, but config.json says "
                "tie_word_embeddings true: set it to false to use both"
            )
    return tensors


def check_shapes(found: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """Compare names and shapes with what the configuration asks for.

    Raises
    ------
    WeightsError
        If a tensor is missing, extra or of another shape.
    """
    # Counted first, so that a configuration with 10**9 layers costs nothing.
    layers = {match[1] for match in map(_LAYER.match, found) if match}
    if len(layers) < config.num_hidden_layers:
        absent = next(i for i in range(config.num_hidden_layers) if str(i) not in layers)
        raise WeightsError(
            f"checkpoint has {len(layers)} layers, config.json says {config.num_hidden_layers}: "
            f"model.layers.{absent} is missing"
        )
    expected = expected_shapes(config)
    if missing := expected.keys() - found.keys():
        raise WeightsError(f"checkpoint lacks {_some(missing)}, which config.json asks for")
    if extra := found.keys() - expected.keys():
        raise WeightsError(f"checkpoint has {_some(extra)}, which config.json does not ask for")
    for name, shape in expected.items():
        if found[name] != shape:
            raise WeightsError(
                f"{name} has shape {found[name]!s:.80}, config.json asks for {shape}"
            )


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of all names, shapes and float32 bytes, in order of name.

    It does not depend on how the weights are stored: shards, order, or 16-bit types.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_folder(
    folder: str | Path,
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write ``config.json``, ``model.safetensors`` (float32) and text files, all or nothing.

    Parameters
    ----------
    folder : str or Path
        Made here; must not exist.
    config : ModelConfig
        Written as ``config.json``.
    tensors : mapping of str to ndarray
        The names and shapes of ``expected_shapes(config)``.
    files : mapping of str to str, optional
        More files: name and text.

    Raises
    ------
    WeightsError
        If the folder exists, the tensors do not fit the configuration, or the disk is full.
    ConfigError
        If ``config.json`` cannot hold the configuration, such as a llama with sliding layers.
    """
    folder = Path(folder)
    _check_reads_back(config)
    check_shapes({name: tensor.shape for name, tensor in tensors.items()}, config)
    if folder.exists():
        raise WeightsError(f"{folder} exists already: give another folder, or remove it")
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        floats = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}
        save_file(floats, partial / "model.safetensors", {"format": "pt"})
        texts = {"config.json": json.dumps(config.to_dict(), indent=2) + "\n", **(files or {})}
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        # safetensors writes its file for its owner alone; the others follow the umask
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
        os.rename(partial, folder)
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: no name, no text
        raise WeightsError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _check_reads_back(config: ModelConfig) -> None:
    """Raise `ConfigError` if its ``config.json`` is read as another model, or not at all."""
    written = config.to_dict()
    try:
        again = ModelConfig.from_dict(written).to_dict()
    except ConfigError as error:
        raise ConfigError(f"no config.json can hold this configuration: {error}") from None
    for key in sorted(written.keys() | again.keys()):
        here = written.get(key)
        there = again.get(key)
        if here != there:
            raise ConfigError(
                f"no config.json of a {config.model_type} can hold {key} "
                f"{here!r:.80}: it would be read as {there!r:.80}"
            )


def _open_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder's files as it is stored, structure checked, values not yet read."""
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder; give one that holds config.json and weights")
    single, path = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if os.path.lexists(single) or not path.is_file():
        return _open_file(single)
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON: {error}") from None
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not shard_of:
        raise WeightsError(f'{path} has no "weight_map" that gives the shard of each tensor')
    for shard in shard_of.values():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise WeightsError(
                f"{path} names the shard {shard!a:.80}, expected the plain name of "
                "a .safetensors file in the same folder"
            )
    stored: dict[str, np.ndarray] = {}
    for shard in sorted(set(shard_of.values())):
        tensors = _open_file(folder / shard)
        if stray := {name for name in tensors if shard_of.get(name) != shard}:
            raise WeightsError(
                f"{folder / shard} holds {_some(stray)}, which {path.name} does not place there"
            )
        stored |= tensors
    if lost := shard_of.keys() - stored.keys():
        raise WeightsError(f"{path} promises {_some(lost)}, which its shards do not hold")
    return stored


def _text_half(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text model of a checkpoint that may hold a vision model too, under a text model's names.

    It lies in ``language_model.`` (transformers 4) or ``model.language_model.`` (5).
    """
    text = {}
    for name, stored in found.items():
        if not _VISION.match(name):
            plain = _TEXT.sub("", name).replace("model.language_model.", "model.", 1)
            if plain in text:
                raise WeightsError(f"checkpoint holds {plain!a:.80} twice, under two names")
            text[plain] = stored
    return text


def _open_file(path: Path) -> dict[str, np.ndarray]:
    """Map the tensors of one safetensors file; bfloat16 as the uint16 that holds its bits."""
    if not os.path.isfile(path):  # missing, or a pipe or device that would never end
        raise WeightsError(
            f"{path} does not exist; fetch the model again, or give a folder that "
            "holds safetensors weights"
        )
    real, folder = Path(os.path.realpath(path)), os.path.realpath(path.parent)
    in_hub_cache = real.parent.name == "blobs" and real.parts[-3].startswith("models--")
    if not in_hub_cache and not real.is_relative_to(folder):
        raise WeightsError(f"{path} is a link that leaves its folder: copy the file there")
    stored = {}
    try:
        with open(path, "rb") as file, safe_open(path, "np"):  # the latter checks the header
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(data[:8], "little")
        for name, claim in json.loads(data[8:start]).items():
            if name != "__metadata__":
                if claim["dtype"] not in _STORED:
                    raise ValueError(f"{name} is {claim['dtype']}")
                dtype = _STORED[claim["dtype"]]
                begin = start + claim["data_offsets"][0]
                stored[name] = np.ndarray(claim["shape"], dtype, data, begin)
    except (OSError, SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"{path} cannot be read as whole F32, F16 or BF16 safetensors: "
            f"{str(error)!a:.200}; fetch it again"
        ) from None
    return stored


class _Tensors(Mapping[str, np.ndarray]):
    """Stored tensors as float32; one that is still in use is not made again."""

    def __init__(self, stored: dict[str, np.ndarray]) -> None:
        self._stored, self._made = stored, WeakValueDictionary[str, np.ndarray]()

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._made.get(name)
        if tensor is None:
            tensor = self._made[name] = _as_float32(self._stored[name])
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _as_float32(stored: np.ndarray) -> np.ndarray:
    """A tensor as float32: a view where the file holds aligned float32, else a new array."""
    if stored.dtype == np.uint16:
        tensor = np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
    else:
        tensor = np.require(stored, np.float32, "A")
    release([stored])
    tensor.flags.writeable = False
    return tensor


def _check_finite(name: str, stored: np.ndarray) -> None:
    flat = stored.reshape(-1)
    for start in range(0, flat.size, 1 << 16):  # so that what is made stays small
        part = flat[start : start + (1 << 16)]
        values = np.left_shift(part, 16, dtype=np.uint32).view("f4") if part.dtype == "u2" else part
        finite = np.isfinite(values)
        if not finite.all():
            at = start + int(np.argmin(finite))
            where = tuple(int(i) for i in np.unravel_index(at, stored.shape))
            raise WeightsError(
                f"{name} holds {values[at - start]} at {where}, expected finite numbers"
            )
    release([stored])


def release(tensors: Iterable[np.ndarray]) -> None:
    """Let the system take back the pages of mapped tensors; reading them again maps them anew."""
    for tensor in tensors:
        if tensor.flags.writeable:  # what was changed in a private mapping would be lost
            continue
        if isinstance(tensor.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            tensor.base.madvise(mmap.MADV_DONTNEED)


def _some(names: Iterable[str]) -> str:
    """Up to three names from a file, short and without control characters."""
    first, *more = sorted(names)
    shown = [name[:80] if name.isprintable() else f"{name!a:.80}" for name in (first, *more[:2])]
    return ", ".join(shown) + (f" and {len(more) - 2} more" if len(more) > 2 else "")

"""Model folders in Hugging Face layout: ``config.json`` and safetensors weights.

A safetensors file is eight bytes (the header's length, little-endian), a JSON header that gives
each tensor's dtype, shape and byte range, and the tensors' bytes without gaps. The header is read
here, because the weights must be memory-mapped without a copy and nothing in it may be trusted:
whatever it claims, the memory used stays below ``MEMORY_MULTIPLE`` times the size of the files.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..config import ModelConfig
from ..errors import WeightsError

MEMORY_MULTIPLE = 64
"""Peak memory of a load per byte of its files: 2 for 16-bit weights, and up to this for a file
that is nothing but JSON, where each Python object stands for two or three bytes."""

_HEADER_LIMIT = 16 * 2**20  # bytes; over 100,000 tensors
_ITEMSIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
             "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}  # fmt: skip
_ROTARY_BUFFER = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


class _Entry(NamedTuple):
    """One tensor of a file: its type, shape and byte range within ``data``."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    data: mmap.mmap
    file: str


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model; weight matrices are (out, in)."""
    D, F, V = config.hidden_size, config.intermediate_size, config.vocab_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (D,),
        "self_attn.q_proj.weight": (queries, D),
        "self_attn.k_proj.weight": (keys, D),
        "self_attn.v_proj.weight": (keys, D),
        "self_attn.o_proj.weight": (D, queries),
        "post_attention_layernorm.weight": (D,),
        "mlp.gate_proj.weight": (F, D),
        "mlp.up_proj.weight": (F, D),
        "mlp.down_proj.weight": (D, F),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, D)}
    for index in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (D,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (V, D)
    return shapes


def load_tensors(folder: str | Path, config: ModelConfig) -> dict[str, np.ndarray]:
    """Open a folder's weights as float32 arrays.

    float32 tensors are read-only views of the memory-mapped file: nothing is copied, and pages
    that are shared between processes count once. float16 and bfloat16 tensors are widened one
    after the other. The files must not be cut short while the arrays are in use.

    A shard index may name only plain files of the folder, and a link must end in the folder or
    in the ``models--*/blobs`` of a hub cache, which is how the hub lays out its snapshots.
    Rotary ``inv_freq`` buffers of old checkpoints are passed over. ``lm_head.weight`` in a
    checkpoint with tied embeddings is passed over where it equals the embedding, bit for bit.

    Parameters
    ----------
    folder : str or Path
        Holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.
    config : ModelConfig
        The shape that the weights must have.

    Returns
    -------
    dict of str to ndarray
        Exactly the names and shapes of ``expected_shapes(config)``, all float32 and finite.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or a tensor is missing, extra, of another shape or
        dtype, or not finite; the message names the file or tensor.
    """
    folder = Path(folder)
    entries = _open_checkpoint(folder)
    for name in [name for name in entries if _ROTARY_BUFFER.fullmatch(name)]:
        del entries[name]
    head = entries.pop("lm_head.weight", None) if config.tie_word_embeddings else None
    check_shapes({name: entry.shape for name, entry in entries.items()}, config)
    tensors = {name: _as_float32(name, entry) for name, entry in entries.items()}
    for name, tensor in tensors.items():
        _check_finite(name, tensor)
    if head is not None:
        embedding = tensors["model.embed_tokens.weight"]
        output = _as_float32("lm_head.weight", head)
        if output.shape != embedding.shape or not np.array_equal(
            output.view(np.uint32), embedding.view(np.uint32)
        ):
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
            raise WeightsError(f"{name} has shape {found[name]}, config.json asks for {shape}")


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
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = Path(folder)
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
        for path in (*partial.iterdir(), partial):
            _sync(path)
        os.rename(partial, folder)
        _sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _sync(path: Path) -> None:
    """Ask the disk to hold what was written, so that the rename cannot come first."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_checkpoint(folder: Path) -> dict[str, _Entry]:
    """Every tensor of a folder's files, structure checked, values not yet read."""
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder; give one that holds config.json and weights")
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if os.path.lexists(single) or not index.is_file():
        return _open_file(single, folder)
    shard_of = _read_index(index)
    entries: dict[str, _Entry] = {}
    for shard in sorted(set(shard_of.values())):
        for name, entry in _open_file(folder / shard, folder).items():
            if shard_of.get(name) != shard:
                raise WeightsError(f"{folder / shard} holds {_quote(name)}, which {index.name} "
                                   "does not place there")  # fmt: skip
            entries[name] = entry
    if lost := shard_of.keys() - entries.keys():
        raise WeightsError(f"{index} promises {_some(lost)}, which its shards do not hold")
    return entries


def _read_index(path: Path) -> dict[str, str]:
    """The shard that holds each tensor."""
    if path.stat().st_size > _HEADER_LIMIT:
        raise WeightsError(f"{path} is larger than {_HEADER_LIMIT} bytes, expected a shard index")
    index = _parse_json(path.read_bytes(), str(path))
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not shard_of:
        raise WeightsError(f'{path} has no "weight_map" that gives the shard of each tensor')
    for shard in shard_of.values():
        plain = isinstance(shard, str) and re.fullmatch(r"[\w-][\w.-]*\.safetensors", shard, re.A)
        if not plain or len(shard) > 200:
            raise WeightsError(f"{path} names the shard {_quote(shard)}, expected the plain name "
                               "of a .safetensors file in the same folder")  # fmt: skip
    return shard_of


def _open_file(path: Path, folder: Path) -> dict[str, _Entry]:
    """Map one safetensors file and check its header against its size."""
    try:
        real = path.resolve()
        if not path.is_file():  # missing, or a pipe or device that would never end
            raise WeightsError(f"{path} does not exist; fetch the model again, or give a folder "
                               "that holds safetensors weights")  # fmt: skip
        in_hub_cache = real.parent.name == "blobs" and real.parent.parent.name.startswith(
            "models--"
        )
        if not in_hub_cache and not real.is_relative_to(folder.resolve()):
            raise WeightsError(f"{path} is a link that leaves its folder: copy the file there")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = _read_header(file, size, str(path))
            start = file.tell()
            data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise WeightsError(f"{path} cannot be read: {error}") from None
    entries = {
        name: _entry(f"{path}: tensor {_quote(name)}", claim, start, size, data)
        for name, claim in header.items()
    }
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:4]):
        if entry.begin != end:
            fault = "overlaps the one before it" if entry.begin < end else "follows a gap"
            raise WeightsError(f"{path}: tensor {_quote(name)} {fault} at byte {entry.begin}")
        end = entry.end
    if end != size:
        raise WeightsError(f"{path} has {size} bytes, its header describes {end}: it was changed "
                           "or cut short, so fetch it again")  # fmt: skip
    return entries


def _read_header(file: BinaryIO, size: int, where: str) -> dict[str, Any]:
    """The JSON object at the start of a safetensors file, without its metadata."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise WeightsError(f"{where} has {size} bytes, too few for its header: it was cut short, "
                           "or is no safetensors file")  # fmt: skip
    if length > _HEADER_LIMIT:
        raise WeightsError(f"{where} has a header of {length} bytes, the limit is {_HEADER_LIMIT}")
    header = _parse_json(file.read(length), f"the header of {where}")
    if not isinstance(header, dict):
        raise WeightsError(f"the header of {where} is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError(f"the header of {where} has metadata that is no object of strings")
    return header


def _entry(where: str, claim: Any, start: int, size: int, data: mmap.mmap) -> _Entry:
    """Check what a header claims of one tensor; ``where`` names file and tensor."""
    if not isinstance(claim, dict) or claim.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{where} is described by something other than dtype, shape and offsets")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEMSIZE:
        raise WeightsError(f"{where} has dtype {_quote(dtype)}, expected F32, F16 or BF16")
    if not _naturals(shape) or len(shape) > 8:
        raise WeightsError(f"{where} has shape {_quote(shape)}, expected up to 8 whole numbers")
    if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - start:
        raise WeightsError(f"{where} has offsets {_quote(offsets)}, which do not lie in the "
                           f"{size - start} bytes of data")  # fmt: skip
    begin, end = offsets
    if math.prod(shape) * _ITEMSIZE[dtype] != end - begin:
        raise WeightsError(f"{where} has shape {_quote(shape)} of {dtype}, but {end - begin} bytes")
    return _Entry(dtype, tuple(shape), start + begin, start + end, data, where)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _as_float32(name: str, entry: _Entry) -> np.ndarray:
    """A tensor as float32: a view where the file holds aligned float32, else a new array."""
    if entry.dtype not in ("F32", "F16", "BF16"):
        raise WeightsError(f"{name} has dtype {entry.dtype}, expected F32, F16 or BF16")
    stored = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[entry.dtype]
    flat = np.frombuffer(entry.data, stored, math.prod(entry.shape), entry.begin)
    if entry.dtype == "F32":
        tensor = flat if flat.flags.aligned else flat.copy()
    elif entry.dtype == "F16":
        tensor = flat.astype(np.float32)
    else:  # bfloat16 is the upper half of a float32
        bits = flat.astype(np.uint32)
        bits <<= 16
        tensor = bits.view(np.float32)
    if entry.dtype != "F32" and hasattr(entry.data, "madvise"):
        # The 16-bit pages have been read for the last time: let the system take them back.
        first = entry.begin - entry.begin % mmap.PAGESIZE
        entry.data.madvise(mmap.MADV_DONTNEED, first, entry.end - first)
    tensor = tensor.reshape(entry.shape)
    tensor.flags.writeable = False
    return tensor


def _check_finite(name: str, tensor: np.ndarray) -> None:
    """Refuse NaN and infinities, block by block so that the mask stays small."""
    flat = tensor.reshape(-1)
    for start in range(0, flat.size, 1 << 16):
        finite = np.isfinite(flat[start : start + (1 << 16)])
        if not finite.all():
            at = start + int(np.argmin(finite))
            where = tuple(int(i) for i in np.unravel_index(at, tensor.shape))
            raise WeightsError(f"{name} holds {flat[at]} at {where}, expected finite numbers")


def _parse_json(raw: bytes, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key appears twice in one object")
        return made

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where} is not valid JSON: {error}") from None


def _quote(value: Any) -> str:
    """A value from the file, short and without control characters."""
    if isinstance(value, (list, dict)) and not (_naturals(value) and len(value) < 16):
        return "a list or object"
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(name if len(name) <= 80 and name.isprintable() else _quote(name)
                     for name in first) + more  # fmt: skip

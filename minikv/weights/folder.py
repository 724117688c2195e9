"""Model folders in Hugging Face layout: ``config.json`` and safetensors weights.

A safetensors file is eight bytes (the header's length, little-endian), a JSON header that gives
each tensor's dtype, shape and byte range, and the tensors' bytes without gaps. The safetensors
package checks a header against its file; the tensors are then mapped here, because the package
copies them, and does not know bfloat16 without torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..config import ModelConfig, expected_shapes
from ..config_json import quantization, read
from ..errors import ConfigError, WeightsError
from ..extras import require
from .packed import Packed, pack_up

try:
    import mmap
except ImportError:  # WebAssembly; files are read whole where there is no module
    mmap = None  # type: ignore[assignment]

Part = Callable[[str], tuple[slice | np.ndarray, ...]]
"""What is taken of a tensor, by its name; () for all of it."""

MEMORY_MULTIPLE = 64
"""Peak memory of opening files, per byte of them, at most: for a file that is nothing but JSON,
where each Python object stands for two or three bytes."""

Stored = np.ndarray | Packed
"""A tensor as a file holds it; bfloat16 as the uint16 that holds its bits."""

_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_DIGEST_FILE = ".minikv-weights.json"
_STORED = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "U32": "<u4",  # packed weights, which `packed` joins with their scales
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_SHARD = re.compile(r"[\w-][\w.-]{,200}\.safetensors", re.A)

# Tables that some trainers save beside the weights: each model makes them anew.
_BUFFER = re.compile(
    r"(.*\.)?(rotary(_pos)?_emb\..*|(original_)?inv_freq|(cos|sin)_cached|position_ids"
    r"|(self_)?attn\.(masked_)?bias|(causal|attention)_mask)"
)
# The base class saves without "model.", a wrapper around the model with one more.
_NAME = re.compile(r"(model\.){0,2}(?P<name>(embed_tokens|norm|layers)\..*)")
_HEAD_NAME = re.compile(r"(model\.)?lm_head\.weight")
# Gemma 3 with eyes: its language half, in the names of transformers 4 and 5, and the rest
_VISION = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")
_LANGUAGE = re.compile(r"(model\.)?language_model\.")


def load_tensors(
    folder: str | Path, config: ModelConfig, part: Part | None = None
) -> Mapping[str, np.ndarray]:
    """Open a folder's weights as float32 arrays.

    float32 tensors are read-only views of the memory-mapped file: nothing is copied, and pages
    that are shared between processes count once. float16 and bfloat16 tensors are widened, and
    matrices that MLX quantised are unpacked (`minikv.weights.packed`), when they are asked for. The
    files must not be cut short while the arrays are in use.

    A shard index may name only plain files of the folder; links are followed. Names may lack
    ``model.``, as the base class saves them, or have it twice. Passed over are rotary tables,
    masks and position ids, of any dtype, and what Gemma 3 holds beside its text model
    (``vision_tower``, ``multi_modal_projector``). With tied embeddings ``lm_head.weight`` may
    stand for the embedding; where both are there, they must be equal, bit for bit.

    Parameters
    ----------
    folder : str or Path
        Holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.
    config : ModelConfig
        The shape that the weights must have.
    part : callable, optional
        Which part of each tensor is wanted: no number of the others is read.

    Returns
    -------
    mapping of str to ndarray
        Exactly the names and shapes of ``expected_shapes(config)``, or the parts of them, all
        float32 and finite.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or a tensor is missing, extra, of another shape or
        dtype, or not finite; the message names the file or tensor.
    """
    folder = Path(folder)
    files: list[Path] = []
    stored = _joined(_under_our_names(_open_checkpoint(folder, files), config), folder)
    head = stored.pop(_HEAD, None) if config.tie_word_embeddings else None
    if head is not None and _EMBEDDING not in stored:
        stored[_EMBEDDING] = head
        head = None
    check_shapes({name: raw.shape for name, raw in stored.items()}, config)
    tensors = FolderTensors(stored, folder, files, part)
    for name, raw in stored.items():
        if isinstance(raw, Packed):  # whose scales and biases have been looked at
            continue
        wanted = tensors.cut(name, raw)
        assert isinstance(wanted, np.ndarray)
        _check_finite(name, wanted)
        release([raw])
    if head is not None and not _equal_bits(
        _as_float32(tensors.cut(_EMBEDDING, head)), tensors[_EMBEDDING]
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
        instead = "" if layers else f"; it has {_some(found) or 'no tensors'}"
        raise WeightsError(
            f"checkpoint has {len(layers)} layers, config.json says {config.num_hidden_layers}: "
            f"model.layers.{absent} is missing{instead}"
        )
    expected = expected_shapes(config)
    missing = expected.keys() - found.keys()
    if missing:
        raise WeightsError(f"checkpoint lacks {_some(missing)}, which config.json asks for")
    extra = found.keys() - expected.keys()
    if extra:
        raise WeightsError(f"checkpoint has {_some(extra)}, which config.json does not ask for")
    for name, shape in expected.items():
        if found[name] != shape:
            raise WeightsError(
                f"{name} has shape {found[name]!s:.80}, config.json asks for {shape}"
            )


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, of all names, shapes and float32 bytes, in order of name.

    It does not depend on how the weights are stored: shards, order, or 16-bit types; float64 is
    hashed as it is. That of a folder is kept beside its weights, in ``.minikv-weights.json``, and
    made anew when a file has another size or time of change.
    """
    if isinstance(tensors, FolderTensors):
        return tensors.kept_hash()
    return _hash(tensors)


def _hash(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        given = np.asarray(tensors[name])
        wide = given.dtype == np.float64
        tensor = np.ascontiguousarray(given, dtype="<f8" if wide else "<f4")
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
    safetensors = require("safetensors", f"writing {folder}")
    save_file = require("safetensors.numpy", f"writing {folder}").save_file
    floats = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}
    texts = {"config.json": json.dumps(config.to_dict(), indent=2) + "\n", **(files or {})}
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        save_file(floats, partial / "model.safetensors", {"format": "pt"})
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        # safetensors writes its file for its owner alone; the others follow the umask
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
        os.rename(partial, folder)
    except (
        OSError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:  # ValueError: no name, no text
        raise WeightsError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _replace(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        scratch.write_text(json.dumps(content), encoding="utf-8")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


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


def _joined(named: dict[str, np.ndarray], folder: Path) -> dict[str, Stored]:
    """Tensors as they are, but for quantised matrices, which are joined with their scales."""
    words = [name for name, raw in named.items() if raw.dtype == np.uint32]
    if not words:
        return dict(named)
    path = folder / "config.json"
    told = quantization(read(path)) if path.exists() else None
    if told is None:
        raise WeightsError(
            f"{folder} holds {_some(words)} as 'U32', expected F32, F16 or BF16, or MLX's packed "
            "weights with 'quantization' in config.json"
        )
    return pack_up(named, told)


def _open_checkpoint(folder: Path, files: list[Path]) -> dict[str, np.ndarray]:
    """Every tensor of a folder as it is stored, structure checked, values not yet read.

    `files` gets the files that hold them.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder; give one that holds config.json and weights")
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if os.path.lexists(single) or not index.is_file():
        files.append(single)
        return _open_file(single)
    shard_of = _weight_map(index)
    stored: dict[str, np.ndarray] = {}
    for shard in sorted(set(shard_of.values())):
        files.append(folder / shard)
        tensors = _open_file(folder / shard)
        stray = {name for name in tensors if shard_of.get(name) != shard}
        if stray:
            raise WeightsError(
                f"{folder / shard} holds {_some(stray)}, which {index.name} does not place there"
            )
        stored |= tensors
    lost = {name for name in shard_of if name not in stored and not _BUFFER.fullmatch(name)}
    if lost:
        raise WeightsError(f"{index} promises {_some(lost)}, which its shards do not hold")
    return stored


def _weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor, as an index file gives it."""
    try:
        content = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{index} is not valid JSON: {error}") from None
    shard_of = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shard_of, dict) or not shard_of:
        raise WeightsError(f'{index} has no "weight_map" that gives the shard of each tensor')
    for shard in shard_of.values():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise WeightsError(
                f"{index} names the shard {shard!a:.80}, expected the plain name of "
                "a .safetensors file in the same folder"
            )
    return shard_of


def _under_our_names(found: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """The tensors of the text model by the names of `expected_shapes`, and others by their own."""
    named: dict[str, np.ndarray] = {}
    for name, raw in found.items():
        plain = name
        if config.model_type == "gemma3_text":
            if _VISION.match(name):
                continue
            plain = _LANGUAGE.sub("", name, count=1)
        match = _NAME.fullmatch(plain)
        if match is not None:
            plain = "model." + match["name"]
        elif _HEAD_NAME.fullmatch(plain):
            plain = _HEAD
        if plain in named:
            raise WeightsError(f"checkpoint holds {plain!a:.80} twice, under two names")
        named[plain] = raw
    return named


def _open_file(path: Path) -> dict[str, np.ndarray]:
    """Map the tensors of one safetensors file; bfloat16 as the uint16 that holds its bits."""
    if not os.path.isfile(path):  # missing, or a pipe or device that would never end
        raise WeightsError(f"{path} does not exist{_instead(path.parent)}")
    safetensors = require("safetensors", f"reading {path}")
    stored = {}
    try:
        with safetensors.safe_open(path, "np"):  # checks the header
            data = _map(path)
        start = 8 + int.from_bytes(data[:8], "little")
        for name, claim in json.loads(data[8:start]).items():
            if name == "__metadata__" or _BUFFER.fullmatch(name):
                continue
            if claim["dtype"] not in _STORED:
                raise _OtherType(name, claim["dtype"])
            dtype = _STORED[claim["dtype"]]
            begin = start + claim["data_offsets"][0]
            stored[name] = np.ndarray(claim["shape"], dtype, data, begin)
    except _OtherType as other:
        name, dtype = other.args
        raise WeightsError(
            f"{path} holds {name!a:.80} as {dtype!a:.20}, expected F32, F16 or BF16: quantised and "
            "double-precision weights are not built; convert them"
        ) from None
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"{path} cannot be read as whole safetensors: {str(error)!a:.200}; it is cut short or "
            "damaged, get it anew"
        ) from None
    return stored


class _OtherType(Exception):
    """A tensor is stored in a type that is not read."""


def _instead(folder: Path) -> str:
    """What a folder without the weights that are looked for holds instead, as advice."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".gguf"):
                return f", but {name} does: give that file itself"
            if name.endswith((".bin", ".pth", ".pt")):
                return f", but {name} does: save the model as safetensors (pickles are not read)"
    return "; give a folder that holds the safetensors weights of a model"


def _map(path: Path) -> Any:
    """A file's bytes, mapped where the platform and the file system can."""
    with open(path, "rb") as file:
        if mmap is not None:
            with contextlib.suppress(OSError):  # WASI has the module, and nothing behind it
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return file.read()


class FolderTensors(Mapping[str, np.ndarray]):
    """Stored tensors of a folder as float32, or parts of them; one in use is not made again."""

    def __init__(
        self,
        stored: dict[str, Stored],
        folder: Path,
        files: list[Path],
        part: Part | None = None,
    ) -> None:
        self._stored = stored
        self._part = part
        self._made = WeakValueDictionary[str, np.ndarray]()
        self._folder = folder
        self._digest_file = folder / _DIGEST_FILE
        self._files = files
        self._opened = self._state()

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._made.get(name)
        if tensor is None:
            raw = self._stored[name]
            tensor = self._made[name] = _as_float32(self.cut(name, raw))
            if not isinstance(raw, Packed):
                release([raw])
        return tensor

    def cut(self, name: str, raw: Stored) -> Stored:
        """The part of a tensor that is wanted; of a quantised one whole rows are unpacked."""
        if self._part is None:
            return raw
        part = self._part(name)
        if not isinstance(raw, Packed):
            return raw[part]
        rows = part[:1]
        some = replace(raw, words=raw.words[rows], scales=raw.scales[rows], biases=raw.biases[rows])
        return some.unpacked()[(slice(None), *part[1:])]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def kept_hash(self) -> str:
        """`weights_hash`, read from the folder where its files are as they were then."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._digest_file.read_bytes())
            told = kept["sha256"]
            if kept["files"] == self._opened and re.fullmatch("[0-9a-f]{64}", told):
                return told
        made = _hash(FolderTensors(self._stored, self._folder, self._files))
        if self._opened == self._state():
            with contextlib.suppress(OSError):  # a folder that cannot be written to: made again
                _replace(self._digest_file, {"files": self._opened, "sha256": made})
        return made

    def _state(self) -> dict[str, list[int]]:
        """Size and time of change of each file that holds weights."""
        told = {}
        for path in self._files:
            status = os.stat(path)
            told[path.name] = [status.st_size, status.st_mtime_ns]
        return told


def _as_float32(stored: Stored) -> np.ndarray:
    """A tensor as float32: a view where the file holds aligned float32, else a new array."""
    if isinstance(stored, Packed):
        tensor = stored.unpacked()
        release([stored.words])
        tensor.flags.writeable = False
        return tensor
    if stored.dtype == np.uint16:
        tensor = np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
    else:
        tensor = np.require(stored, np.float32, "A")
    release([stored])
    tensor.flags.writeable = False
    return tensor


def _equal_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))


def _check_finite(name: str, stored: np.ndarray) -> None:
    flat = stored.reshape(-1)
    for start in range(0, flat.size, 1 << 16):  # so that what is made stays small
        part = flat[start : start + (1 << 16)]
        if part.dtype == np.uint16:
            part = np.left_shift(part, 16, dtype=np.uint32).view(np.float32)
        finite = np.isfinite(part)
        if not finite.all():
            first = int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(start + first, stored.shape))
            raise WeightsError(f"{name} holds {part[first]} at {index}, expected finite numbers")
    release([stored])


def release(tensors: Iterable[np.ndarray]) -> None:
    """Let the system take back the pages of mapped tensors; reading them again maps them anew."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    for tensor in tensors:
        if tensor.flags.writeable:  # what was changed in a private mapping would be lost
            continue
        if isinstance(tensor.base, mmap.mmap):
            tensor.base.madvise(mmap.MADV_DONTNEED)


def _some(names: Iterable[str]) -> str:
    """Up to three names from a file, short and without control characters."""
    first, *more = sorted(names) or [""]
    shown = [name[:80] if name.isprintable() else f"{name!a:.80}" for name in (first, *more[:2])]
    return ", ".join(shown) + (f" and {len(more) - 2} more" if len(more) > 2 else "")

"""Saved caches of a split model: files of the whole model's, which any number of ranks can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..caches import Cache
from ..caches.saving import Tensors, checksum, expect, read_state, write_state
from ..errors import CacheError, InputError
from .build import SplitModel

POLICIES_BY_HEAD = ("full", "none", "residual", "window", "streaming_llm")
"""Policies whose caches may be split: what they keep depends on places in the text alone."""

BY_HEAD = ("k", "v", "positions", "scores")  # tensors of a state with an axis of K/V heads: the 2nd


def check_policy(policy: str) -> None:
    """Raise `InputError` for a cache whose heads cannot lie on several ranks."""
    name = policy.partition("@")[0].partition(":")[0]
    if name not in POLICIES_BY_HEAD:
        raise InputError(
            f"--cache {policy} decides by all heads, which no rank has: with several ranks choose "
            f"from {', '.join(POLICIES_BY_HEAD)}"
        )


def save_cache(model: SplitModel, cache: Cache, path: str | Path) -> None:
    """Write the cache of all heads to a file, on rank 0; all ranks call it together.

    The file is the one that a single process would have written.
    """
    tensors, metadata = cache.state()
    groups = [part.tolist() for part in model.comm.gather(np.array(model.share.groups))]
    whole = {name: _joined(model, name, tensor, groups) for name, tensor in tensors.items()}
    if model.comm.rank == 0:
        sha256 = checksum(metadata["seen"], whole)
        write_state(path, whole, metadata | {"sha256": sha256})


def load_cache(model: SplitModel, cache: Cache, path: str | Path) -> None:
    """Read a file of any number of ranks, on rank 0, and take each rank's heads of it.

    All ranks call it together. Raises `CacheError` as `Cache.load` does.
    """
    tensors: Tensors = {}
    metadata: Any = None
    kinds: Any = None
    if model.comm.rank == 0:
        tensors, metadata = read_state(path)
        kinds = {name: tensor.dtype.str for name, tensor in tensors.items()}
    metadata, kinds = model.comm.from_first([metadata, kinds])  # type: ignore[misc]  # the pair sent
    whole = {}
    for name, kind in kinds.items():
        given = tensors.get(name, np.empty(0, kind))
        whole[name] = model.comm.gather(given)[0]
    intact = metadata.get("sha256") == checksum(metadata.get("seen", ""), whole)
    try:
        expect(intact, "it does not have the SHA-256 that was saved with it")
    except CacheError as error:
        raise CacheError(f"the saved cache is damaged, save it anew: {error}") from None
    own = {name: _own(model, name, tensor) for name, tensor in whole.items()}
    sha256 = checksum(metadata["seen"], own)
    cache.load_state(own, metadata | {"sha256": sha256})


def _by_head(name: str) -> bool:
    return name.partition(".")[0] in BY_HEAD


def _joined(
    model: SplitModel, name: str, tensor: np.ndarray, groups: list[list[int]]
) -> np.ndarray:
    """A tensor of the state with the K/V heads of all ranks, each once."""
    if not _by_head(name):
        return tensor
    parts = model.comm.gather(tensor)
    heads: dict[int, np.ndarray] = {}
    for part, held in zip(parts, groups, strict=True):
        for place, group in enumerate(held):
            heads.setdefault(group, part[:, place])
    return np.stack([heads[group] for group in sorted(heads)], axis=1)


def _own(model: SplitModel, name: str, tensor: np.ndarray) -> np.ndarray:
    """The rank's K/V heads of a tensor; what has other heads is of another model, and refused."""
    count = model.share.whole.num_key_value_heads
    if not _by_head(name) or tensor.ndim < 2 or tensor.shape[1] != count:
        return tensor
    return np.ascontiguousarray(tensor[:, list(model.share.groups)])

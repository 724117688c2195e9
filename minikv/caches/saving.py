"""The state of a cache as tensors and as a safetensors file, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ..arrays import to_numpy
from ..decoder import Weights
from ..errors import CacheError

Tensors = dict[str, np.ndarray]


class Savable:
    """What `Cache` inherits: `state` and `load_state`, `save` and `load`."""

    policy: ClassVar[str]
    weights: Weights
    seen: int

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the policy, as JSON can hold them."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """How many tokens the cache can have seen."""
        raise NotImplementedError

    def _tensors(self) -> Tensors:
        """All that is held of `seen` tokens, by name; may share memory with the cache."""
        raise NotImplementedError

    def _twin(self, tensors: Tensors, seen: int) -> Self:
        """A cache like this one that holds copies of these tensors.

        Raises `CacheError` unless they are those of a cache that has seen so many tokens.
        """
        raise NotImplementedError

    def state(self) -> tuple[Tensors, dict[str, str]]:
        """A copy of the tensors held, and what they belong to: what a saved file contains."""
        held = self._tensors().items()
        tensors = {name: np.array(to_numpy(array), order="C") for name, array in held}
        seen = str(self.seen)
        return tensors, self._metadata() | {"seen": seen, "sha256": checksum(seen, tensors)}

    def load_state(self, tensors: Tensors, metadata: dict[str, str]) -> None:
        """Become what `state` described; after an error the cache is what it was.

        Raises
        ------
        CacheError
            If the state belongs to another policy, model or arithmetic, or is damaged, or is one
            that no cache can have come to.
        """
        for key, expected in self._metadata().items():
            found = metadata.get(key)
            if found != expected:
                raise CacheError(
                    f"the saved cache has {key} {found!r:.200}, expected {expected!r}; "
                    "load it into a cache made as it was, by the same model"
                )
        try:
            arrays = all(isinstance(array, np.ndarray) for array in tensors.values())
            expect(arrays, "it holds something else than NumPy arrays")
            seen = self._checked_seen(metadata.get("seen", ""))
            intact = metadata.get("sha256") == checksum(metadata["seen"], tensors)
            expect(intact, "it does not have the SHA-256 that was saved with it")
            twin = self._twin(tensors, seen)
        except CacheError as error:
            raise CacheError(f"the saved cache is damaged, save it anew: {error}") from None
        self.__dict__.update(twin.__dict__)

    def save(self, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
        """Write the state to a safetensors file; an interrupted save leaves the old file whole.

        Parameters
        ----------
        path : str or Path
        notes : mapping of str to str, optional
            Texts to keep beside it, which `read_notes` gives back. A cache does not know them.

        Raises
        ------
        CacheError
            If the file cannot be written.
        """
        tensors, metadata = self.state()
        noted = {f"note {name}": text for name, text in (notes or {}).items()}
        write_state(path, tensors, noted | metadata)

    def load(self, path: str | Path) -> None:
        """Read a file written by `save`; raises `CacheError` like `load_state`."""
        self.load_state(*read_state(path))

    def _checked_seen(self, written: str) -> int:
        """The number of tokens seen, which metadata holds as text."""
        longest = self.longest
        plain = isinstance(written, str) and written.isascii() and written.isdecimal()
        short = plain and len(written) <= len(str(longest))
        possible = short and int(written) <= longest
        expect(possible, f"it has seen {written!r:.40} tokens, expected a number up to {longest}")
        return int(written)

    def _metadata(self) -> dict[str, str]:
        return {
            "policy": self.policy,
            "parameters": json.dumps(self.parameters, sort_keys=True),
            "arithmetic": self.weights.arithmetic.name,
            "model": self.weights.identity,
        }


def read_notes(path: str | Path) -> dict[str, str]:
    """The texts that `Savable.save` kept beside a cache, by name.

    Raises
    ------
    CacheError
        If the file is no saved cache.
    """
    _, metadata = read_state(path)
    return {
        name.removeprefix("note "): text
        for name, text in metadata.items()
        if name.startswith("note ")
    }


def write_state(path: str | Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write what `Savable.state` gives, whole or not at all.

    Raises
    ------
    CacheError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    path = Path(path)
    data = save(tensors, dict(metadata))
    scratch = path.parent / f".minikv.{os.getpid()}.{threading.get_ident()}"
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")  # a device or a pipe would be replaced
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        raise CacheError(f"cannot save the cache to {path}: {error.strerror}") from None
    except ValueError as error:  # also for a name that no file can have
        raise CacheError(f"cannot save the cache to {path}: {error}") from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            scratch.unlink()


def read_state(path: str | Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a saved cache; raises `CacheError` if the file is none."""
    from safetensors import SafetensorError, safe_open

    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise ValueError("there is no such file")
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            # the file is no mapping, and cannot be iterated over itself
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CacheError(f"{path} is not a saved cache: {error}") from None
    except (AttributeError, TypeError):  # as safetensors meets a type that NumPy lacks
        raise CacheError(f"{path} is not a saved cache: its numbers are not NumPy's") from None
    return tensors, metadata


def checksum(seen: str, tensors: Tensors) -> str:
    """The SHA-256 of the tensors and of the number of tokens seen: what tells a damaged file.

    Whoever writes a file by hand can write the right one. What a state says is checked besides.
    """
    digest = hashlib.sha256(seen.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def expect(holds: bool, otherwise: str) -> None:
    """Raise `CacheError` with this message unless something holds of a saved state."""
    if not holds:
        raise CacheError(otherwise)

"""The state of a cache as tensors and as a safetensors file, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from .arrays import to_numpy
from .errors import CacheError

if TYPE_CHECKING:
    from .decoder import Weights


class Savable:
    """What `Cache` inherits: `state` and `load_state`, `save` and `load`."""

    policy: ClassVar[str]
    weights: Weights
    parameters: dict[str, Any]
    seen: int

    def _tensors(self) -> dict[str, np.ndarray]:
        """All that is held of `seen` tokens, by name; may share memory with the cache."""
        raise NotImplementedError

    def _twin(self, tensors: dict[str, np.ndarray], seen: int) -> Self:
        """A cache like this one that holds copies of these tensors."""
        raise NotImplementedError

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """A copy of the tensors held, and what they belong to: what a saved file contains."""
        tensors = {k: np.array(to_numpy(v), order="C") for k, v in self._tensors().items()}
        seen = str(self.seen)
        return tensors, self._metadata() | {"seen": seen, "sha256": _digest(seen, tensors)}

    def load_state(self, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        """Become what `state` described; after an error the cache is what it was.

        Raises
        ------
        CacheError
            If the state belongs to another policy, model or arithmetic, or is damaged.
        """
        for key, expected in self._metadata().items():
            if metadata.get(key) != expected:
                raise CacheError(
                    f"the saved cache has {key} {metadata.get(key)}, expected {expected}; "
                    "load it into a cache made as it was, by the same model"
                )
        try:
            if metadata["sha256"] != _digest(metadata["seen"], tensors):
                raise ValueError("it does not have the SHA-256 that was saved with it")
            self.__dict__.update(self._twin(tensors, int(metadata["seen"])).__dict__)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CacheError(f"the saved cache is damaged, save it anew: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file; an interrupted save leaves the old file whole.

        Raises
        ------
        CacheError
            If the file cannot be written.
        """
        from safetensors.numpy import save

        path, data = Path(path), save(*self.state())
        scratch = path.parent / f".minikv.{os.getpid()}.{threading.get_ident()}"
        try:
            if path.exists() and not path.is_file():
                raise ValueError("it is no plain file")  # a device or a pipe would be replaced
            with open(scratch, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except (OSError, ValueError) as error:  # the latter for a name that no file can have
            why = getattr(error, "strerror", None) or error
            raise CacheError(f"cannot save the cache to {path}: {why}") from None
        finally:
            with contextlib.suppress(OSError, ValueError):
                scratch.unlink()

    def load(self, path: str | Path) -> None:
        """Read a file written by `save`; raises `CacheError` like `load_state`."""
        from safetensors import SafetensorError, safe_open

        try:
            if not os.path.isfile(path):  # a pipe would be waited for
                raise ValueError("there is no such file")
            with safe_open(str(path), framework="numpy") as file:
                metadata, names = file.metadata() or {}, file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            raise CacheError(f"{path} is not a saved cache: {error}") from None
        self.load_state(tensors, metadata)

    def _metadata(self) -> dict[str, str]:
        model = hashlib.sha256(json.dumps(self.weights.config.to_dict()).encode())
        learned = [self.weights.embed_tokens]
        learned += [value for layer in self.weights.layers for value in vars(layer).values()]
        for value in learned:
            array = value if hasattr(value, "shape") else getattr(value, "values", None)
            if hasattr(array, "shape"):  # a sample, every 97th number, tells models apart
                sample = to_numpy(array).reshape(-1)[::97]
                if sample.dtype == np.uint16:  # bfloat16, as the backend numba keeps it
                    sample = np.left_shift(sample, 16, dtype=np.uint32).view(np.float32)
                model.update(sample.astype(np.float32).tobytes())
        return {
            "policy": self.policy,
            "parameters": json.dumps(self.parameters, sort_keys=True),
            "arithmetic": self.weights.arithmetic.name,
            "model": model.hexdigest(),
        }


def _digest(seen: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(seen.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

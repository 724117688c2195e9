"""What a decoder keeps between calls. The decoder does not know which policy it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import CacheError
from .full import Full

if TYPE_CHECKING:
    from ..layers import Layer

Array = Any


class Cache(Protocol):
    """The memory of one sequence.

    Positions live here, not in the model. During a call the decoder hands each layer's new rows to
    `update` and attends to what comes back; `advance` at the end makes the call's tokens part of
    the sequence, so that a call that fails or is interrupted leaves the cache as it was.
    """

    seen: int  # tokens that are part of the sequence; the next one has this position

    def update(
        self, layer: Layer, positions: np.ndarray, residual: Array, k: Array, v: Array
    ) -> tuple[np.ndarray, Array, Array]:
        """Take the ``(T, D)``, ``(T, G, d)``, ``(T, G, d)`` rows of new tokens at one layer.

        Returns the positions, keys and values that these tokens attend to, ``(S,)``, ``(S, G, d)``
        and ``(S, G, d)``, by ascending position and including their own.
        """

    def advance(self, tokens: int) -> None:
        """Make the last `tokens` updates of every layer part of the sequence."""

    def reset(self) -> None:
        """Forget everything."""

    @property
    def nbytes(self) -> int:
        """Bytes of the rows held, allocated reserve included."""


def make_cache(name: str | Cache, layers: tuple[Layer, ...]) -> Cache:
    """Make an empty cache for a model's layers by policy name; a `Cache` passes through.

    Examples
    --------
    >>> import minikv
    >>> model = minikv.random_model(minikv.tiny_config(), seed=0)
    >>> make_cache("full", model.layers).seen
    0
    """
    if not isinstance(name, str):
        return name
    if name != "full":
        raise CacheError(f"cache policy {name!r} is unknown; built: 'full'")
    return Full(layers)


__all__ = ["Cache", "Full", "make_cache"]

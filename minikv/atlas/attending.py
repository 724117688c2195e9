"""What attention of a case's first text reads and gives, layer by layer, in float64 too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..arithmetic import Sight
from ..arrays import to_numpy
from ..layers import Layer
from ..verify.cases import Case


@dataclass(frozen=True)
class Attention:
    """Attention of all queries of a text at one layer; float32."""

    layer: Layer
    q: np.ndarray  # (T, H, d)
    k: np.ndarray  # (S, G, d)
    v: np.ndarray  # (S, G, d)
    z: np.ndarray  # (T, H, d)

    @property
    def scale(self) -> float:
        """By which scores are multiplied."""
        return self.layer.config.attention_scale

    def sight(self, places: np.ndarray) -> Sight:
        """Which of the keys at these places each query sees."""
        return Sight(np.arange(len(self.q)), places, self.layer.window)

    def last(self, k: np.ndarray, v: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each head, scores and values of the keys that the last query sees, float64.

        Parameters
        ----------
        k, v : (S, G, d)
            Keys and values, those of the text or others in their place.
        """
        tokens, heads, _ = self.q.shape
        first = 0 if self.layer.window is None else max(0, tokens - self.layer.window)
        share = heads // k.shape[1]
        for head, asked in enumerate(self.q[-1].astype(np.float64) * self.scale):
            keys, values = (rows[first:, head // share].astype(np.float64) for rows in (k, v))
            yield keys @ asked, values


def attention_of(case: Case) -> Iterator[Attention]:
    """Of each layer of a case."""
    for layer in case.model.layers:
        names = ("rot_q", "rot_k", "v", "z")
        q, k, v, z = (
            to_numpy(case.activations[f"blocks.{layer.index}.attn.hook_{name}"]) for name in names
        )
        yield Attention(layer, q, k, v, z)

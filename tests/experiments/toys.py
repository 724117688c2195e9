"""Random models and texts for the experiments."""

from __future__ import annotations

import numpy as np

import minikv
from minikv.config import FULL, SLIDING

CHECKPOINTS = ("every", "2", "3", "0+2", "embedding", "tokens")
RESIDUAL = tuple(f"residual:{kept}" for kept in CHECKPOINTS)

FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 5, "layer_types": (SLIDING,) * 3},
    "gemma3_text": {
        "sliding_window": 5,
        "layer_types": (SLIDING, SLIDING, FULL),
        "rope_local_base_freq": 100.0,
    },
}


def tiny(arithmetic: str = "exact", seed: int = 0, **changes) -> minikv.Model:
    return minikv.random_model(minikv.tiny_config(**changes), seed=seed, arithmetic=arithmetic)


def texts(count: int, length: int, seed: int = 0) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    return {f"text {n}": rng.integers(0, 97, length + n).tolist() for n in range(count)}

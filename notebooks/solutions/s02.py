"""Solutions of chapter 2, the residual stream."""

from __future__ import annotations

from typing import Any

import numpy as np


def parts(activations: dict[str, np.ndarray], layers: int) -> list[np.ndarray]:
    """The embedding, then two parts a block."""
    found = [activations["hook_embed"]]
    for layer in range(layers):
        found.append(activations[f"blocks.{layer}.hook_attn_out"])
        found.append(activations[f"blocks.{layer}.hook_mlp_out"])
    return found


def read_at(model: Any, activations: dict[str, np.ndarray], layer: int) -> np.ndarray:
    """The last norm and the output matrix, applied early."""
    rows = activations[f"blocks.{layer}.hook_resid_pre"]
    scale = np.sqrt(np.mean(rows**2, axis=-1, keepdims=True) + model.config.rms_norm_eps)
    return (rows / scale * model.weights.norm) @ model.weights.lm_head.T


def keys(rows: np.ndarray, positions: np.ndarray, layer: Any) -> np.ndarray:
    """Normalize, project with W_K, turn by the given positions."""
    x = layer.norm(rows, layer.input_layernorm)  # (T, D)
    k = (x @ layer.k_proj.T).reshape(len(rows), -1, layer.config.head_dim)  # (T, G, d)
    return layer.turned(k, positions)


def shares(parts: np.ndarray, gain: np.ndarray, u: np.ndarray, eps: float) -> np.ndarray:
    """One scale, that of the sum, for all parts."""
    scale = np.sqrt(np.mean(parts.sum(axis=0) ** 2) + eps)
    return parts / scale * gain @ u


def twin(x: np.ndarray, g: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Mirror the part of x that W does not see: its length, and all that W sees, stay."""
    unseen = np.linalg.svd(W * g)[2][len(W) :]  # orthonormal rows that W diag(g) sends to 0
    return x - 2 * unseen.T @ (unseen @ x)

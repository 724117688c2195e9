"""The arithmetic of the zoo's decoders, on NumPy and on PyTorch.

NumPy's 16 bits are emulated: each operation is computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, held in float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return kept.view(np.float32)


def to_digits(x: np.ndarray, digits: int) -> np.ndarray:
    """Rounded to so many binary digits."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, digits)), exponent - digits)


COARSE = {"float32": 12, "float16": 4, "bfloat16": 2}  # digits


class NumPyNumbers:
    """Operations that round after each step where the dtype is narrow."""

    def __init__(self, dtype: str) -> None:
        self.name = dtype
        self.dtype = np.float64 if dtype == "float64" else np.float32

    def round(self, x: Any) -> Any:
        if self.name == "float16":
            return np.asarray(x, np.float32).astype(np.float16).astype(np.float32)
        if self.name == "bfloat16":
            return to_bfloat16(x)
        return np.asarray(x, self.dtype)

    def array(self, x: Any) -> Any:
        return self.round(np.asarray(x, self.dtype))

    def coarse(self, x: Any) -> Any:
        """Rounded to far fewer digits than the dtype has; not in float64."""
        if self.name == "float64":
            return x
        return self.array(to_digits(self.numpy(x), COARSE[self.name]))

    def matmul(self, a: Any, b: Any) -> Any:
        return self.round(a @ b)

    def concat(self, parts: Any, axis: int) -> Any:
        return np.concatenate(parts, axis)

    def repeat(self, x: Any, times: int) -> Any:
        return np.repeat(x, times, axis=1)

    def mean_of_batch(self, x: Any) -> Any:
        return self.round(x.mean(0, keepdims=True))

    def softmax(self, scores: Any, mask: np.ndarray, extra: float = 0.0) -> Any:
        scores = np.where(mask, scores, self.dtype(-1e30))
        powers = np.exp(scores - scores.max(-1, keepdims=True)) * mask
        total = np.maximum(powers.sum(-1, keepdims=True) + self.dtype(extra), self.dtype(1e-30))
        return self.round(powers / total)

    def rms_norm(self, x: Any, eps: float) -> Any:
        return self.round(x / np.sqrt((x * x).mean(-1, keepdims=True) + self.dtype(eps)))

    def layer_norm(self, x: Any, eps: float) -> Any:
        y = x - x.mean(-1, keepdims=True)
        return self.round(y / np.sqrt((y * y).mean(-1, keepdims=True) + self.dtype(eps)))

    def silu(self, x: Any) -> Any:
        return self.round(x / (1 + np.exp(-np.clip(x, -60, 60))))

    def numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x, np.float64)

    def copy(self, x: Any) -> Any:
        return x.copy()

    def stored(self, x: Any, kind: str) -> Any:
        """As a cache of another dtype keeps it."""
        if kind == "float16":
            return np.asarray(x, np.float32).astype(np.float16).astype(self.dtype)
        if kind == "bfloat16":
            return to_bfloat16(x).astype(self.dtype)
        scale = np.abs(x).max(-1, keepdims=True) / 127 + self.dtype(1e-30)
        return self.round(np.round(x / scale) * scale)


class TorchNumbers(NumPyNumbers):
    """PyTorch's own dtypes."""

    def __init__(self, dtype: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.name = dtype
        self.dtype = getattr(torch, dtype)

    def round(self, x: Any) -> Any:
        return x.to(self.dtype)

    def array(self, x: Any) -> Any:
        return self.torch.as_tensor(np.array(x, np.float64)).to(self.dtype)

    def matmul(self, a: Any, b: Any) -> Any:
        return a @ b

    def concat(self, parts: Any, axis: int) -> Any:
        return self.torch.cat(parts, axis)

    def repeat(self, x: Any, times: int) -> Any:
        return x.repeat_interleave(times, 1)

    def mean_of_batch(self, x: Any) -> Any:
        return x.mean(0, keepdim=True)

    def _inside(self, x: Any) -> Any:
        return x if self.name == "float64" else x.float()

    def softmax(self, scores: Any, mask: np.ndarray, extra: float = 0.0) -> Any:
        seen = self.torch.as_tensor(np.array(mask))
        inside = self._inside(scores).masked_fill(~seen, -1e30)
        powers = self.torch.exp(inside - inside.amax(-1, keepdim=True)) * seen
        return (powers / (powers.sum(-1, keepdim=True) + extra).clamp_min(1e-30)).to(self.dtype)

    def rms_norm(self, x: Any, eps: float) -> Any:
        y = self._inside(x)
        return (y * self.torch.rsqrt((y * y).mean(-1, keepdim=True) + eps)).to(self.dtype)

    def layer_norm(self, x: Any, eps: float) -> Any:
        return self.torch.nn.functional.layer_norm(x, (x.shape[-1],), eps=eps)

    def silu(self, x: Any) -> Any:
        return self.torch.nn.functional.silu(x)

    def numpy(self, x: Any) -> np.ndarray:
        return x.detach().double().numpy()

    def copy(self, x: Any) -> Any:
        return x.clone()

    def stored(self, x: Any, kind: str) -> Any:
        if kind != "int8":
            return x.to(getattr(self.torch, kind)).to(self.dtype)
        scale = x.abs().amax(-1, keepdim=True) / 127 + 1e-30
        return (self.torch.round(x / scale) * scale).to(self.dtype)

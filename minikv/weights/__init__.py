"""Weights: open and write model folders, fetch known models, convert GGUF files."""

from ..config import expected_shapes
from .fetch import resolve
from .folder import load_tensors, release, save_folder, weights_hash

__all__ = [
    "expected_shapes",
    "load_tensors",
    "release",
    "resolve",
    "save_folder",
    "weights_hash",
]

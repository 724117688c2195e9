"""The fingerprint of a model's answer: one number that two people can compare.

Under the exact arithmetic it is a constant of the weights and the token ids: it depends neither on
the machine, BLAS, thread count, SIMD level or array library, nor on how the text is fed. Under
float32 it depends on all of them.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import to_numpy
from .errors import InputError
from .model import Model

PROMPT = "The residual stream is all the state that a decoder has."
"""The text that ``minikv fingerprint`` reads where none is given."""


def fingerprint(model: Model, ids: Sequence[int], chunks: int | Sequence[int] | None = None) -> str:
    """SHA-256, in hexadecimal, of the logits of all positions, as little-endian float32.

    Parameters
    ----------
    model : Model
    ids : sequence of int
        One text.
    chunks : int or sequence of int, optional
        Feed the text through a full cache, so many tokens a call, or in calls of these lengths.
        By default it is one call without a cache.

    Raises
    ------
    InputError
        If an id is outside the vocabulary, the text is empty or longer than the context, or the
        chunks do not add up to it.

    Examples
    --------
    >>> import minikv
    >>> model = minikv.random_model(minikv.tiny_config(), seed=1, arithmetic="exact")
    >>> fingerprint(model, [3, 1, 4, 1, 5]) == fingerprint(model, [3, 1, 4, 1, 5], chunks=2)
    True
    """
    if chunks is None:
        return hash_logits(model.logits(ids))
    cache = model.new_cache()
    return hash_logits(
        *(model.forward([part], [cache], logits="all") for part in split(ids, chunks))
    )


def hash_logits(*parts: Any) -> str:
    """SHA-256 of ``(rows, V)`` logits, one part after the other, as little-endian float32."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(to_numpy(part), dtype="<f4").data)
    return digest.hexdigest()


def split(ids: Sequence[int], chunks: int | Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut a text into pieces of one length (the last may be shorter), or of these lengths."""
    if isinstance(chunks, int):
        if chunks < 1:
            raise InputError(f"a chunk has {chunks} tokens, expected at least 1")
        chunks = [min(chunks, len(ids) - at) for at in range(0, len(ids), chunks)]
    if sum(chunks) != len(ids) or min(chunks, default=1) < 1:
        raise InputError(
            f"chunks {list(chunks)} do not add up to the {len(ids)} tokens of the text"
        )
    start = 0
    for length in chunks:
        yield ids[start : start + length]
        start += length


def environment() -> dict[str, Any]:
    """What float32 results depend on: NumPy, its BLAS, kernel and threads, SIMD, Python, CPU.

    The kernel, and the threads that are really used, are known where threadpoolctl is installed.
    """
    build = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    simd = build["SIMD Extensions"]
    name, kernel = f"{blas['name']} {blas['version']}", "unknown: threadpoolctl is not installed"
    threads: int | None = None
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        pass
    else:
        loaded = [library for library in threadpool_info() if library["user_api"] == "blas"]
        # Other libraries may have loaded a BLAS of their own; NumPy's lies beside NumPy.
        own = [library for library in loaded if "numpy" in library["filepath"].lower()]
        kernel = "unknown: threadpoolctl does not know this BLAS"
        if library := next(iter(own or loaded), None):
            name, threads = (
                f"{library['internal_api']} {library['version']}",
                library["num_threads"],
            )
            kernel = library.get("architecture") or kernel
    return {
        "numpy": np.__version__,
        "blas": name,
        "kernel": kernel,
        "threads": threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "simd": [*simd["baseline"], *simd.get("found", ())],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"

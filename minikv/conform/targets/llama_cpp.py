"""A GGUF file in llama.cpp, through the package llama-cpp-python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...extras import require_extra
from ...model import Model, load

CONTEXT = 512
PLAIN = ("F32", "F16", "BF16")

Llama = Any
"""What the package calls Llama."""


class LlamaCppTarget:
    """llama.cpp with one context, whose cache is cut back to what a call shares with it.

    Parameters
    ----------
    llama : llama_cpp.Llama
        Made with ``logits_all=True``.
    file : str
    dtype : {"float32", "float16"}
        Of K and V, and so of the products of attention.
    same : bool
        Whether it computes what minikv does: not beside quantised weights, where activations are
        rounded to 8 bits.
    version : str
        Of the package.
    """

    def __init__(
        self,
        llama: Llama,
        file: str,
        dtype: str = "float32",
        same: bool = False,
        version: str = "not known",
    ) -> None:
        self.llama = llama
        self.dtype = dtype
        self.environment = {"llama-cpp-python": version}
        self.file = file
        self.name = f"llama.cpp:{file}, K and V {dtype}"
        self.vocab = int(llama.n_vocab())
        self.max_length = int(llama.n_ctx())
        if llama.metadata.get("tokenizer.ggml.model", "none") == "none":
            self.encode = None  # type: ignore[assignment,method-assign]  # not here
        if not same:
            self.reference = None  # type: ignore[assignment,method-assign]  # not here

    def reference(self) -> Model:
        """minikv on what the file holds, in float64."""
        return load(self.file, "float64")

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self.llama.tokenize(text.encode("utf-8"), add_bos=False))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of every position, from an empty cache."""
        self.llama.reset()
        return self._after(ids)

    def new_cache(self) -> list[int]:
        """The tokens of a text; llama.cpp's cache is brought to them before a step."""
        return []

    def step(self, ids: Sequence[int], cache: list[int]) -> np.ndarray:
        """Logits of new tokens, behind what llama.cpp holds of this text.

        Where another text was run in between, the tokens of this one are run again, in one call.
        """
        held = list(self.llama.input_ids[: self.llama.n_tokens])
        if held[: len(cache)] == cache:
            self.llama.n_tokens = len(cache)
        else:
            self.llama.reset()
            self._after(cache)
        rows = self._after(ids)
        cache += list(ids)
        return rows

    def truncate(self, cache: list[int], length: int) -> None:
        """Forget tokens; llama.cpp's own rows of them are dropped by the next step."""
        del cache[length:]

    def request(self, ids: Sequence[int]) -> tuple[np.ndarray, int]:
        """As its server does it: the longest prefix that is in the cache stays."""
        held = list(self.llama.input_ids[: self.llama.n_tokens])
        shared = 0
        for old, new in zip(held, list(ids)[:-1], strict=False):
            if old != new:
                break
            shared += 1
        self.llama.n_tokens = shared
        return self._after(list(ids)[shared:]), shared

    def _after(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of tokens behind those that llama.cpp holds."""
        start = int(self.llama.n_tokens)
        self.llama.eval(list(ids))
        return np.array(self.llama.scores[start : start + len(ids)], dtype=np.float64)


def target(file: str, dtype: str | None = None) -> LlamaCppTarget:
    """A GGUF file, with K and V in float16, as llama.cpp chooses, or in float32."""
    store = dtype or "float16"
    if store not in ("float16", "float32"):
        raise InputError(f"dtype is {dtype!r:.40}, expected float16 or float32, of K and V")
    if not Path(file).is_file():
        raise InputError(f"{file:.80} is no file, expected one that ends on .gguf")
    package = require_extra("llama_cpp", "benchmarks", "a target of llama.cpp")
    kind = package.GGML_TYPE_F32 if store == "float32" else package.GGML_TYPE_F16
    llama = package.Llama(
        file,
        n_ctx=CONTEXT,
        logits_all=True,
        verbose=False,
        n_threads=1,
        n_threads_batch=1,
        n_gpu_layers=0,
        type_k=kind,
        type_v=kind,
    )
    same = store == "float32" and not quantised(file)
    return LlamaCppTarget(llama, file, store, same, package.__version__)


def quantised(file: str) -> bool:
    """Whether a file's matrices are in blocks with a scale each."""
    gguf = require_extra("gguf", "fetch", "reading a GGUF file")
    return any(one.tensor_type.name not in PLAIN for one in gguf.GGUFReader(file).tensors)

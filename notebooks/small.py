"""A small random model in the place of SmolLM2, for the short versions of chapters (`short.py`)."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import replace

import minikv
from minikv.model import Model

CONFIG = minikv.tiny_config(num_hidden_layers=30, intermediate_size=1536)


class Words:
    """A tokenizer of words: an id is a hash, and an id whose word was never seen is a number."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.seen: dict[int, str] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of words and signs."""
        words = re.findall(r"\w+|[^\w\s]", text)
        ids = [zlib.crc32(word.encode()) % self.vocab_size for word in words]
        self.seen |= dict(zip(ids, words, strict=True))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The words of ids."""
        return "".join(f" {self.seen.get(id, f'<{id}>')}" for id in ids)


def small_model(arithmetic: str) -> Model:
    """Random weights, with as many blocks as SmolLM2 and its width of the MLP.

    Examples
    --------
    >>> small_model("float32").tokenizer.encode("Once upon a time")
    [57, 89, 80, 77]
    """
    model = minikv.random_model(CONFIG, seed=0, arithmetic=arithmetic)
    return replace(model, tokenizer=Words(CONFIG.vocab_size))

"""A tokenizer of single bytes, and files beside its tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from minikv.tokenizer import Tokenizer


def beside(folder: Path, settings: object = None, **files: object) -> Tokenizer:
    """256 bytes, ``<|bos|>`` (256) and ``<|eos|>`` (257), and files beside them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<|bos|>", "<|eos|>")]
    )
    backend.save(str(folder / "tokenizer.json"))
    for name, content in {"tokenizer_config": settings or {}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return Tokenizer.from_folder(folder)

"""A SentencePiece tokenizer that drops the first space of a text, as Llama 2 and Mistral do."""

from __future__ import annotations

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from minikv.tokenizer import Tokenizer

PIECES = ["<unk>", "<s>", "</s>", "▁", *"ThecapitlofrnsPb.", *(f"<0x{i:02X}>" for i in range(256))]
PARTS = ["▁The", "▁is", "▁Paris"]


def llama_tokenizer() -> Tokenizer:
    """Letters, bytes and three words, with the normalizer and decoder of TinyLlama's file."""
    vocabulary: dict[str, int] = {}
    merges = []
    for piece in PIECES:
        vocabulary.setdefault(piece, len(vocabulary))
    for word in PARTS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in ("<unk>", "<s>", "</s>")]
    )
    return Tokenizer(backend, {"bos_token": "<s>"}, (2,), None)

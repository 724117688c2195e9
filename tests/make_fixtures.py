"""Make ``tests/fixtures/tiny``: a toy Llama with a tokenizer and a chat template, under 300 KB.

Run ``python tests/make_fixtures.py FOLDER`` to make it anew; the bytes do not depend on the
machine, and a test compares them with the committed ones.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from minikv.config import ModelConfig
from minikv.weights import expected_shapes, save_folder

SEED = 20240607
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONFIG = ModelConfig(
    vocab_size=320,
    hidden_size=48,
    intermediate_size=72,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    rope_theta=10000.0,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=(2,),
)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = """The residual stream is all the state that a decoder has. Every block reads the stream
and adds to the stream. The keys and the values of a token are a projection of the
stream at that token, and so the cache of the keys and the values can be thrown away
and made again, bit for bit. What the cache saves is time, and what it costs is
memory. That is the whole of the argument, and the tests that are here try to break
it."""


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, others from 256 on."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def train_bpe(count: int) -> list[tuple[str, str]]:
    """The `count` merges that byte-pair encoding learns from the corpus."""
    letters = byte_letters()
    words = Counter(
        tuple(letters[byte] for byte in word.encode())
        for word in CORPUS.replace("\n", " ").replace(" ", "\n ").split("\n")
    )
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += times
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, times in words.items():
            out: list[str] = []
            for letter in word:
                if out and (out[-1], letter) == best:
                    out[-1] += letter
                else:
                    out.append(letter)
            merged[tuple(out)] += times
        words = merged
    return merges


def tokenizer_files() -> dict[str, str]:
    """``tokenizer.json`` in the shape of SmolLM's, and ``tokenizer_config.json``."""
    merges = train_bpe(CONFIG.vocab_size - 256 - len(SPECIAL))
    tokens = [*SPECIAL, *byte_letters(), *(left + right for left, right in merges)]
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate(SPECIAL)
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "unk_token": SPECIAL[0],
        "chat_template": TEMPLATE,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
    }


def tensors() -> dict[str, np.ndarray]:
    """Random weights from the raw bits of PCG64, whose stream NumPy guarantees.

    Uniform, scaled so that each block adds about as much as it reads, and so that the logits
    spread by a few units: neither uniform nor all on one token.
    """
    bits = np.random.PCG64(SEED)
    out = {}
    for name, shape in expected_shapes(CONFIG).items():
        raw = (bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float64)
        unit = raw / 2.0**23 - 1.0  # exact: 24 bits, on [-1, 1)
        if len(shape) == 1:
            values = 1.0 + 0.25 * unit
        elif name == "model.embed_tokens.weight":
            values = 0.5 * unit
        else:
            values = unit * math.sqrt(6.0 / shape[1])
        out[name] = values.reshape(shape).astype(np.float32)
    return out


if __name__ == "__main__":
    print(save_folder(Path(sys.argv[1]), CONFIG, tensors(), tokenizer_files()))

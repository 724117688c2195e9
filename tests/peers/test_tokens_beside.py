"""Tokens that stand beside tokenizer.json, at random, as transformers reads them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import beside
from layerwise import peer_modules

_, transformers = peer_modules()
pytestmark = pytest.mark.peers

TEXTS = (
    "a<|bos|>b <|new|> x<|im|><|dec|>.<|add|><|map|> <|x|><|new2|><|map2|>",
    "aa <|dec|>a",
)
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "image_token")


def token(rng: random.Random, content: str) -> dict[str, Any]:
    options = {key: rng.random() < 0.3 for key in ("lstrip", "rstrip", "normalized")}
    return {"content": content, "single_word": False, "special": True, **options}


def files(rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and older files that name and add tokens in any of the ways that there are."""
    settings: dict[str, Any] = {}
    older: dict[str, Any] = {}
    for name in NAMES:
        draw = rng.random()
        if draw < 0.3:
            settings[name] = rng.choice(["<|bos|>", "<|eos|>", "<|new|>", "<|im|>", "a"])
        elif draw < 0.45:
            content = rng.choice(["<|bos|>", "<|new2|>"])
            settings[name] = {"__type": "AddedToken", **token(random.Random(0), content)}
    if rng.random() < 0.3:
        settings["split_special_tokens"] = rng.random() < 0.5
    if rng.random() < 0.35:
        settings["added_tokens_decoder"] = {"258": token(rng, rng.choice(["<|new|>", "<|dec|>"]))}
    if rng.random() < 0.35:
        two = rng.sample(["bos_token", "eos_token", "pad_token"], 2)
        told = ["<|bos|>", "<|eos|>", {"content": "<|map|>", "normalized": False}, "<|map2|>"]
        older["special_tokens_map"] = {name: rng.choice(told) for name in two}
    if rng.random() < 0.3:
        older["added_tokens"] = {rng.choice(["<|add|>", "<|new|>"]): 258}
    return settings, older


@pytest.mark.parametrize("seed", range(100))
def test_tokens_beside_a_tokenizer_are_read_as_transformers_reads_them(seed: int, tmp_path: Path):
    settings, older = files(random.Random(seed))
    ours = beside(tmp_path, settings, **older)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    named = {name: ours.special_tokens.get(name) for name in NAMES[:4]}
    assert named == {name: theirs.special_tokens_map.get(name) for name in NAMES[:4]}

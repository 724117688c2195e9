"""What the recorded cases say of transformers is what the installed transformers does."""

from __future__ import annotations

import copy
import random
from typing import Any

import config_cases
import pytest
from layerwise import peer_modules

from minikv import ModelConfig
from minikv.errors import ConfigError

torch, transformers = peer_modules()
pytestmark = pytest.mark.peers


def taken(config: Any, kind: str) -> dict[str, Any]:
    """What transformers' model of the family reads, under the names of the recorded cases."""
    rope = config.rope_parameters
    local = None
    if kind == "gemma3_text":
        local = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    scaling = rope.get("rope_type", "default")
    slides = [False] * config.num_hidden_layers
    if kind == "mistral":
        slides = [config.sliding_window is not None] * config.num_hidden_layers
    elif kind != "llama":
        slides = [name == "sliding_attention" for name in config.layer_types]
    ends = config.eos_token_id
    if not isinstance(ends, list):
        ends = [] if ends is None else [ends]
    return {
        "rope_theta": rope["rope_theta"],
        "rope_local_base_freq": local,
        "factor": rope["factor"] if scaling != "default" else None,
        "original": rope["original_max_position_embeddings"] if scaling == "llama3" else None,
        "windows": [config.sliding_window if slide else None for slide in slides],
        "ends": tuple(ends),
        "query_pre_attn_scalar": getattr(config, "query_pre_attn_scalar", None),
        "family": config.model_type,
    }


@pytest.mark.parametrize(("kind", "added", "expected"), config_cases.TAKEN)
def test_transformers_takes_what_is_recorded(kind, added, expected):
    given = copy.deepcopy(config_cases.base(kind) | added)  # transformers writes into it
    got = taken(transformers.AutoConfig.for_model(**given), kind)
    got["query_pre_attn_scalar"] = None if kind == "llama" else got["query_pre_attn_scalar"]
    assert {key: got[key] for key in expected} == expected


def rotary_settings(rng: random.Random) -> dict[str, Any]:
    """An object of rotary settings that may contradict itself."""
    kind = rng.choice([None, "default", "linear", "llama3", "yarn"])
    settings: dict[str, Any] = {}
    if kind is not None:
        settings[rng.choice(["rope_type", "rope_type", "type"])] = kind
    if rng.random() < 0.5:
        settings["rope_theta"] = rng.choice([1e4, 5e5])
    if rng.random() < 0.1:
        settings["type"] = "linear"
    if kind not in (None, "default"):
        settings["factor"] = rng.choice([2.0, 4.0])
    if kind == "llama3":
        settings |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        settings["original_max_position_embeddings"] = 64
    return settings


def contents(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A family and a ``config.json`` in which settings stand in one place or two."""
    kind = rng.choice(["llama", "mistral", "qwen2", "qwen3", "gemma3_text"])
    given = config_cases.base(kind)
    rope = rotary_settings(rng)
    nested = {"full_attention": rope, "sliding_attention": {"rope_theta": 7.0}}
    choices: dict[str, list[Any]] = {
        "rope_theta": [1e4, 5e5],
        "rope_scaling": [None, {}, rotary_settings(rng), rope],
        "rope_parameters": [None, nested if kind == "gemma3_text" else rope],
        "rope_local_base_freq": [7.0, 1e4],
        "sliding_window": [8, None],
        "use_sliding_window": [True, False],
        "max_window_layers": [0, 1],
        "layer_types": [["sliding_attention", "full_attention", "sliding_attention"]],
        "sliding_window_pattern": [2, 6],
        "_sliding_window_pattern": [2, 6],
        "eos_token_id": [None, 5, [5, 7]],
        "original_max_position_embeddings": [32, 64],
    }
    for key, values in choices.items():
        if rng.random() < 0.3:
            given[key] = rng.choice(values)
    return kind, given


def test_whatever_is_read_is_read_as_transformers_reads_it():
    """Any of 1,000 random configurations is refused, or taken alike; most are taken."""
    read = 0
    for seed in range(1000):
        kind, given = contents(random.Random(seed))
        try:
            ours = ModelConfig.from_dict(given)
        except ConfigError:
            continue
        read += 1
        theirs = taken(transformers.AutoConfig.for_model(**copy.deepcopy(given)), kind)
        got = config_cases.meaning(ours)
        if kind != "gemma3_text":
            theirs["query_pre_attn_scalar"] = None
        assert got == theirs, given
    assert read > 500

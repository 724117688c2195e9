"""What the recorded cases say of transformers is what the installed transformers does."""

from __future__ import annotations

import copy
from typing import Any

import config_cases
import pytest
from layerwise import peer_modules

torch, transformers = peer_modules()
pytestmark = pytest.mark.peers


def rotary(config: Any, kind: str) -> dict[str, Any]:
    """The rotary settings that transformers' model of the family reads."""
    parameters = config.rope_parameters
    if kind != "gemma3_text":
        return parameters | {"local": None}
    return parameters["full_attention"] | {"local": parameters["sliding_attention"]["rope_theta"]}


@pytest.mark.parametrize(("kind", "added", "expected"), config_cases.TAKEN)
def test_transformers_takes_what_is_recorded(kind, added, expected):
    given = copy.deepcopy(config_cases.base(kind) | added)  # transformers writes into it
    config = transformers.AutoConfig.for_model(**given)
    rope = rotary(config, kind)
    scaled = rope.get("rope_type", "default") != "default"
    layers = range(config.num_hidden_layers)
    slides = [False for _ in layers]
    if kind == "mistral":
        slides = [config.sliding_window is not None for _ in layers]
    elif kind != "llama":
        slides = [name == "sliding_attention" for name in config.layer_types]
    ends = config.eos_token_id
    got = {
        "rope_theta": rope["rope_theta"],
        "rope_local_base_freq": rope["local"],
        "factor": rope["factor"] if scaled else None,
        "original": rope.get("original_max_position_embeddings"),
        "windows": [config.sliding_window if slide else None for slide in slides],
        "ends": tuple(ends) if isinstance(ends, list) else (() if ends is None else (ends,)),
        "query_pre_attn_scalar": None,
        "family": config.model_type,
    }
    assert {key: got[key] for key in expected} == expected

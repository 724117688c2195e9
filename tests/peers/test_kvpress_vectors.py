"""The vectors of the policies against the scores of kvpress, where it has the rule.

A press scores the tokens of a prompt, and the highest stay: the first call of a vector. What is
found, policy by policy:

* ``window``, ``streaming_llm``: `StreamingLLMPress`, the same tokens.
* ``infinite_vggt`` without anchors: `KeyDiffPress`, the same tokens.
* ``tova``: `TOVAPress`, the same but for the newest token, which the press never drops.
* ``snapkv`` without pooling: `SnapKVPress` with a kernel of 1, the same tokens.
* ``h2o`` to the letter (no recent tokens): `ObservedAttentionPress` divides what a key got by the
  number of queries that could see it, and takes the mean over heads where H2O takes the sum; that
  undone, the same tokens.
* ``neural_garbage_collection``: `RandomPress` draws too, with a generator of its own; nothing to
  compare.
* ``lazy_eviction``, ``trim_kv``, ``cake``, ``prefix_kv``, ``arkv``, ``tri_attention``, ``tim`` and
  ``lookahead_kv``: kvpress 0.5 has no such press. Its `DMSPress` and `KVzapPress` cut at a
  threshold and not at a budget, its `DuoAttentionPress` is about heads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from layerwise import peer_modules

sys.path.insert(0, str(Path(__file__).parents[2] / "proofs"))
import policy_vectors

pytestmark = pytest.mark.peers

torch, _, kvpress = peer_modules("kvpress")

INPUTS = json.loads((policy_vectors.FOLDER / "inputs.json").read_text(encoding="utf-8"))
Scores = Callable[[dict[str, Any], Any, Any], Any]


def prompts(name: str, **fixed: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Vectors of a policy whose prompt is cut, and their inputs."""
    text = (policy_vectors.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    for vector in json.loads(text)["vectors"]:
        given = INPUTS[vector["input"]]
        parameters = vector["parameters"]
        cut = "calls" in vector and parameters["budget"] < given["calls"][0]
        if cut and all(parameters.get(key) == value for key, value in fixed.items()):
            yield vector, given


def attention(given: dict[str, Any], layer: int) -> np.ndarray:
    """The prompt's weights, ``(1, H, T, T)``, computed here by themselves."""
    tokens = given["calls"][0]
    q, k = (np.array(given[part][layer][:tokens]) for part in ("q", "k"))
    share = q.shape[1] // k.shape[1]
    scores = np.einsum("thd,shd->hts", q, k.repeat(share, axis=1)) * given["scale"]
    place = np.arange(tokens)
    hidden = place[None, :] > place[:, None]
    if given["window"]:
        hidden |= place[None, :] <= place[:, None] - given["window"]
    weights = np.exp(np.where(hidden, -np.inf, scores))
    return (weights / weights.sum(-1, keepdims=True))[None]


def scored(press: Any, given: dict[str, Any], layer: int) -> np.ndarray:
    """What a press gives each token of the prompt, ``(G, T)``."""
    tokens = given["calls"][0]
    keys, values = (
        torch.tensor(np.array(given[part][layer][:tokens]).transpose(1, 0, 2)[None])
        for part in ("k", "v")
    )
    heads = len(given["q"][0][0])
    module = SimpleNamespace(config=SimpleNamespace(num_attention_heads=heads))
    stream = torch.zeros(1, tokens, 1)
    weights = torch.tensor(attention(given, layer))
    return press.score(module, stream, keys, values, weights, {})[0].numpy()


def best(scores: np.ndarray, budget: int) -> list[list[int]]:
    """The `budget` highest of each head, in the order of the text."""
    order = np.argsort(scores, axis=-1, kind="stable")
    return np.sort(order[:, -budget:], axis=-1).tolist()


def agrees(press_for: Callable[[dict[str, Any]], Any], vector, given) -> bool:
    budget = vector["parameters"]["budget"]
    press = press_for(vector["parameters"])
    press.compression_ratio = 1 - (budget + 0.5) / given["calls"][0]
    kept = vector["calls"][0]["kept"]
    return all(best(scored(press, given, layer), budget) == kept[layer] for layer in range(2))


RULES = {
    "window": ({}, lambda parameters: kvpress.StreamingLLMPress(n_sink=0)),
    "streaming_llm": ({}, lambda parameters: kvpress.StreamingLLMPress(n_sink=parameters["sinks"])),
    "infinite_vggt": ({"anchors": 0}, lambda parameters: kvpress.KeyDiffPress()),
    "snapkv": (
        {"kernel": 1},
        lambda parameters: kvpress.SnapKVPress(window_size=parameters["window"], kernel_size=1),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_policy_keeps_what_kvpress_keeps(name):
    fixed, press_for = RULES[name]
    found = list(prompts(name, **fixed))
    assert len(found) >= 3
    assert all(agrees(press_for, *pair) for pair in found)


def test_tova_differs_in_the_newest_token_alone():
    for vector, given in prompts("tova"):
        budget = vector["parameters"]["budget"]
        newest = given["calls"][0] - 1
        for layer, kept in enumerate(vector["calls"][0]["kept"]):
            theirs = best(scored(kvpress.TOVAPress(), given, layer), budget)
            for mine, peer in zip(kept, theirs, strict=True):
                assert set(peer) - set(mine) == {newest} - set(mine)


def test_h2o_keeps_what_observed_attention_keeps_once_it_does_not_divide():
    found = list(prompts("h2o", recent=0))
    differ = 0
    for vector, given in found:
        budget = vector["parameters"]["budget"]
        tokens = given["calls"][0]
        for layer, kept in enumerate(vector["calls"][0]["kept"]):
            theirs = scored(kvpress.ObservedAttentionPress(), given, layer)
            assert best(theirs * np.arange(tokens, 0, -1), budget) == kept
            differ += best(theirs, budget) != kept
    assert differ, "the division makes no difference: it needs no explanation"


def test_another_rule_does_not_agree():
    """The comparison can fail."""
    wrong = [agrees(lambda _: kvpress.KnormPress(), *pair) for pair in prompts("infinite_vggt")]
    assert not all(wrong)

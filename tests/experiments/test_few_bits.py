"""``minikv atlas --model``: what caches of few bits lose, beside recomputation from residuals."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits

import minikv
from minikv.atlas import entries
from minikv.atlas.quantising import GROUP, head_moves
from minikv.atlas.systems.dont_waste_bits import ByToken
from minikv.atlas.systems.rotate_kv import Turned, hadamard
from minikv.atlas.systems.vid_kv import ByChannel
from minikv.errors import InputError
from minikv.experiments import read_prompts
from minikv.experiments.compare import compare
from minikv.experiments.few_bits import LOSSLESS, Setting, few_bits, summary

SETTING = Setting(new_tokens=3, tokens=GROUP + 2)
FIGURES = Path(__file__).parents[2] / "docs" / "experiments" / "few_bits.json"
ROUNDING = [entry for entry in entries().values() if entry.caches]
UNTUNED = [entry for entry in ROUNDING if entry.name != "kv_tuner"]  # it asks for a tokenizer


@functools.cache
def model_of() -> minikv.Model:
    config = minikv.tiny_config(head_dim=8, tie_word_embeddings=False)
    return minikv.random_model(config, 5, "exact", scale=3.0)


def texts(count: int = 2) -> dict[str, list[int]]:
    rng = np.random.default_rng(0)
    return {str(number): rng.integers(0, 97, 2 * GROUP).tolist() for number in range(count)}


def decoded(cache, ids) -> np.ndarray:
    """Logits token by token behind a prompt of all but three."""
    model = model_of()
    model.forward([ids[:-3]], [cache])
    return np.concatenate([model.forward([[token]], [cache]) for token in ids[-3:]])


def test_recomputation_loses_no_bit_and_few_bits_lose_some():
    rows = summary(few_bits(model_of(), texts(), UNTUNED, SETTING))
    found = {row["cache"]: row for row in rows}
    assert list(found)[:2] == list(LOSSLESS)
    for name, row in found.items():
        exact = name in LOSSLESS
        assert row["bits_equal"] == exact
        assert (row["logit_moved"] == 0.0) == exact
        assert (row["heads"] is None) == exact
        assert row["texts"] == 2
        if not exact:
            assert row["within"] == row["heads"] > 0
            assert row["slack"] >= 1.0
            assert row["bytes"] < row["full_bytes"]


def test_a_bound_that_is_too_small_is_counted(monkeypatch):
    """The control: with a hundredth of the bound, some heads are not within it."""
    from minikv.atlas import quantising

    whole = quantising.distortion

    def small(scores, values):
        moved, bound = whole(scores, values)
        return moved, bound / 100

    monkeypatch.setattr(quantising, "distortion", small)
    rows = summary(few_bits(model_of(), texts(1), UNTUNED, SETTING))
    assert all(row["within"] < row["heads"] for row in rows if row["heads"])


def test_sixteen_bits_move_no_head_and_no_logit():
    model = model_of()
    ids = texts()["0"]
    _, activations = model.run_with_cache(ids)
    expected = decoded(model.new_cache("full"), ids)
    for make in (lambda inner: Turned(inner, 16), lambda inner: ByToken(inner, first=16, again=16)):
        cache = make(model.new_cache("full"))
        assert head_moves(activations, cache, ids)[..., 0].max() == 0.0
        assert_same_bits(decoded(make(model.new_cache("full")), ids), expected)
    assert cache.nbytes == cache.inner.nbytes


def test_tokens_that_fill_no_group_are_as_they_were_made():
    model = model_of()
    ids = texts()["0"]
    early = decoded(ByChannel(model.new_cache("full")), ids[: GROUP - 1])
    assert_same_bits(early, decoded(model.new_cache("full"), ids[: GROUP - 1]))
    cache = ByChannel(model.new_cache("full"))
    late = decoded(cache, ids)
    assert (late != decoded(model.new_cache("full"), ids)).any()
    grouped = (len(ids) - 1) // GROUP * GROUP
    assert cache.nbytes < cache.inner.nbytes
    assert cache.nbytes - cache.packed >= cache.inner.nbytes * (len(ids) - grouped) // len(ids) - 1


def test_a_fork_goes_on_by_itself():
    model = model_of()
    ids = texts()["0"]
    for make in (ByChannel, ByToken, lambda inner: Turned(inner, 2)):
        cache = make(model.new_cache("full"))
        model.forward([ids[:-1]], [cache])
        other = cache.fork()
        model.forward([[1]], [other])
        alone = make(model.new_cache("full"))
        model.forward([ids[:-1]], [alone])
        assert_same_bits(model.forward([ids[-1:]], [cache]), model.forward([ids[-1:]], [alone]))
        assert other.seen == cache.seen == len(ids)


def test_a_transform_of_a_width_that_is_no_power_of_two_is_refused():
    with pytest.raises(InputError, match="heads are 6 wide, expected a power of two"):
        hadamard(np.zeros((1, 6)))


def test_the_committed_figures_add_up_and_are_of_the_caches_that_there_are():
    told = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert told["rows"] == summary(told["prompts"])
    named = [f"{entry.title}, {how}" for entry in ROUNDING for how in entry.caches]
    assert [row["cache"] for row in told["rows"]] == [*LOSSLESS, *named]
    assert (told["new_tokens"], told["tokens"]) == (Setting.new_tokens, Setting.tokens)
    assert {row["texts"] for row in told["rows"]} == {8}
    assert told["command"].startswith("minikv atlas --model ")
    for row in told["rows"]:
        exact = row["cache"] in LOSSLESS
        assert row["bits_equal"] == exact
        assert row["within"] == row["heads"]


@pytest.mark.weights
def test_a_committed_figure_comes_again_to_the_bit():
    told = json.loads(FIGURES.read_text(encoding="utf-8"))
    model = minikv.load(told["model"], told["arithmetic"])
    prompt = "letter"
    ids = model.tokenizer.encode(read_prompts()[prompt])[-told["tokens"] :]
    makers = {
        f"{entry.title}, {how}": lambda weights, budget, make=make: make(model)
        for entry in UNTUNED[-1:]
        for how, make in entry.caches.items()
    }
    again = compare(model, {prompt: ids}, (0,), told["new_tokens"], makers)
    before = {row["cache"]: row for row in told["prompts"] if row["prompt"] == prompt}
    for found in again:
        row = before[found["policy"]]
        assert found["logit_moved"] == row["logit_moved"] > 0.0
        assert found["first_divergence"] == row["first_divergence"]

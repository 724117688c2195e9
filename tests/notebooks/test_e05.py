"""Chapter 5's checks accept their solutions, and tell typical mistakes what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from exercises import e05
from solutions import s05

import minikv


def held(config, seen, stored, residuals, heads=None):
    heads = heads or config.num_key_value_heads
    kv = config.num_hidden_layers * 2 * heads * config.head_dim * 4
    return stored * kv + residuals * config.hidden_size * 4


def no_replay(model, checkpoints, layer):
    stream = checkpoints[max(at for at in checkpoints if at <= layer)]
    return minikv.kv_from_residual(stream, np.arange(len(stream)), model.layers[layer])


def from_the_bottom(model, checkpoints, layer):
    return s05.recompute(model, {0: checkpoints[0]}, layer)


def no_positions(model, checkpoints, layer):
    stream = checkpoints[max(at for at in checkpoints if at <= layer)]
    return minikv.kv_from_residual(stream, np.zeros(len(stream), int), model.layers[layer])


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (e05.check_held, s05.held),
        (e05.check_blocks_run, s05.blocks_run),
        (e05.check_largest_budget, s05.largest_budget),
        (e05.check_recompute, s05.recompute),
    ],
)
def test_solutions_pass(check, answer, capsys):
    assert check(answer), capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (e05.check_held, lambda c, n, b, k: held(c, n, b, n * k), "than have been seen"),
        (
            e05.check_held,
            lambda c, n, b, k: held(c, n, min(n, b), max(0, n - b) * k),
            "recent tokens keep a residual too",
        ),
        (
            e05.check_held,
            lambda c, n, b, k: held(c, n, min(n, b), n * k, c.num_attention_heads),
            "fewer than there are query heads",
        ),
        (e05.check_blocks_run, lambda n, kept: list(range(n)), "is the last"),
        (e05.check_blocks_run, lambda n, kept: list(range(n - 1)), "need not run"),
        (e05.check_blocks_run, lambda n, kept: [], "is missing"),
        (e05.check_largest_budget, lambda t, n, kv, c: min(n, t // kv), "nothing fits"),
        (
            e05.check_largest_budget,
            lambda t, n, kv, c: None if t < n * c else (t - n * c) // kv,
            "there are only",
        ),
        (
            e05.check_largest_budget,
            lambda t, n, kv, c: None if t < n * c else min(n, -(-(t - n * c) // kv)),
            "that takes",
        ),
        (e05.check_recompute, no_replay, "up to it must run"),
        (e05.check_recompute, from_the_bottom, "not from the nearest"),
        (e05.check_recompute, no_positions, "give each row its position"),
    ],
)
def test_mistakes_are_told_what_is_wrong(check, answer, words, capsys):
    assert not check(answer)
    assert words in capsys.readouterr().out

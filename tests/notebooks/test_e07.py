"""Chapter 7's checks accept their solutions, and tell typical mistakes what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from exercises import e07
from solutions import s07

FOREVER: dict = {}


def one_scale(x):
    scale = max(np.abs(x).max() / 127, 1e-30)
    return np.rint(x / scale) * scale


def no_zero(x):
    scale = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.rint(x / scale) * scale


def coarse(x):
    scale = np.maximum(np.abs(x).max(axis=-1, keepdims=True) / 8, 1e-30)
    return np.rint(x / scale) * scale


def no_change(memory):
    return lambda name, value: value


def from_the_present(memory):
    return lambda name, value: 2 * value if name.endswith("hook_mlp_out") else value


def value_residual(memory):
    def hook(name, value):
        if name.endswith("attn.hook_v"):
            return value + memory.setdefault("v", value)
        return value

    return hook


def from_block_one(memory):
    def hook(name, value):
        if name == "blocks.1.hook_resid_pre":
            memory["h"] = value
        return value + memory["h"] if name == "blocks.3.hook_mlp_out" else value

    return hook


def elsewhere(memory):
    return s07.architecture({})


def outlives(memory):
    def hook(name, value):
        if name == "blocks.0.hook_resid_pre":
            FOREVER.setdefault("h", value)
        if name == "blocks.2.hook_mlp_out":
            value = value + FOREVER["h"]
            FOREVER["h"] = value
        return value

    return hook


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (e07.check_rules, s07.rules),
        (e07.check_quantise, s07.quantise),
        (e07.check_next_average, s07.next_average),
        (e07.check_architecture, s07.architecture),
    ],
)
def test_solutions_pass(check, answer, capsys):
    assert check(answer), capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (e07.check_rules, {}, "value_residual has no answer yet"),
        (e07.check_rules, s07.rules | {"quantised_cache": "locality"}, "rounded later"),
        (e07.check_rules, s07.rules | {"no_mask": "mask"}, "is none of bypass"),
        (e07.check_quantise, one_scale, "must not depend on other rows"),
        (e07.check_quantise, no_zero, "0 / 0"),
        (e07.check_quantise, coarse, "is 127 steps"),
        (e07.check_next_average, lambda y, r, at: (y + r) / 2, "right for one step"),
        (e07.check_next_average, lambda y, r, at: (at * y + r) / (at + 1), "expected the mean"),
        (e07.check_next_average, lambda y, r, at: y + r, "r = [0, 1] gives 1"),
        (e07.check_architecture, no_change, "changes nothing"),
        (e07.check_architecture, from_the_present, "depends on the present stream alone"),
        (e07.check_architecture, value_residual, "hook_v"),
        (e07.check_architecture, from_block_one, "does not repair it"),
        (e07.check_architecture, elsewhere, "or elsewhere"),
        (e07.check_architecture, outlives, "outlives its pass"),
    ],
)
def test_mistakes_are_told_what_is_wrong(check, answer, words, capsys):
    assert not check(answer)
    assert words in capsys.readouterr().out

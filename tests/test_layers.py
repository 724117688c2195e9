"""A block's weights at hand: its norms, its heads, and the names under which hooks see them."""

from __future__ import annotations

import numpy as np
from bits import assert_same_bits

import minikv
from minikv.layers import no_hook, within

LAYER = minikv.random_model(minikv.tiny_config(), 1, "exact").layers[1]
ROWS = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)


def test_a_norm_that_the_family_does_not_have_changes_nothing():
    assert LAYER.q_norm is None
    assert LAYER.norm(ROWS, LAYER.q_norm) is ROWS
    assert (LAYER.norm(ROWS, LAYER.input_layernorm) != ROWS).any()


def test_heads_are_cut_out_of_a_row_with_its_bias_and_merged_again():
    bias = np.arange(24, dtype=np.float32)
    assert_same_bits(LAYER.merged(LAYER.heads(ROWS, bias)), ROWS + bias)
    heads = LAYER.heads(ROWS)
    assert heads.shape == (5, 4, 6)
    assert_same_bits(heads[:, 1], ROWS[:, 6:12])
    assert_same_bits(LAYER.merged(heads), ROWS)


def test_position_zero_turns_nothing():
    heads = LAYER.heads(ROWS)
    assert (LAYER.turned(heads, np.zeros(5, int)) == heads).all()
    assert (LAYER.turned(heads, np.arange(5))[1:] != heads[1:]).any()


def test_a_hook_within_a_block_is_called_by_the_longer_name():
    names = []

    def hook(name, value):
        names.append(name)
        return -value

    inner = within("blocks.3.", hook)
    assert inner("attn.hook_q", 1) == -1
    assert names == ["blocks.3.attn.hook_q"]


def test_no_hook_stays_no_hook_so_that_kernels_may_take_the_block_whole():
    assert within("blocks.3.", no_hook) is no_hook
    assert no_hook("hook_embed", ROWS) is ROWS

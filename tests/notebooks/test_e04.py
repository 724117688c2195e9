"""Chapter 4's checks accept their solutions, and tell typical mistakes what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from exercises import e04
from solutions import s04

import minikv
from minikv.decoder import Span, block


def last_row(model, recipient, layer, stream):
    def hook(value, _):
        return np.concatenate([value[:-1], stream[-1:]])

    return model.run_with_hooks(recipient, {f"blocks.{layer}.hook_resid_pre": hook})


def after_the_block(model, recipient, layer, stream):
    return model.run_with_hooks(recipient, {f"blocks.{layer}.hook_resid_post": lambda v, _: stream})


def last_logits(model, recipient, layer, stream):
    return s04.transplant(model, recipient, layer, stream)[-1]


def no_softmax(p, q):
    return np.sum(np.exp(p) * (p - q), axis=-1)


def from_probabilities(p, q):
    p, q = (np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) for x in (p, q))
    return np.sum(p * np.log(p / q), axis=-1)


def wrong_positions(model, start, stream, layer):
    positions = np.arange(len(stream))
    for each in model.layers[start:layer]:
        stream = block(each, stream, positions, [Span(slice(0, len(stream)), positions)])
    return minikv.kv_from_residual(stream, 0 * positions, model.layers[layer])


def one_block_too_many(model, start, stream, layer):
    stop = min(layer + 1, len(model.layers) - 1)
    positions = np.arange(len(stream))
    for each in model.layers[start:stop]:
        stream = block(each, stream, positions, [Span(slice(0, len(stream)), positions)])
    return minikv.kv_from_residual(stream, positions, model.layers[layer])


def no_replay(model, start, stream, layer):
    return minikv.kv_from_residual(stream, np.arange(len(stream)), model.layers[layer])


def newest(length, rows):
    return list(range(max(0, length - rows), length))


def whole_windows(windows, layer, length):
    above = windows[layer:]
    return newest(length, length if None in above else sum(above))


def one_window(windows, layer, length):
    first = (windows[layer:] or [1])[0]
    return newest(length, length if first is None else first - 1)


def as_if_all_had_windows(windows, layer, length):
    return newest(length, sum(window - 1 for window in windows[layer:] if window))


def all_layers(windows, layer, length):
    return s04.must_keep(windows, 0, length)


def before_the_text(windows, layer, length):
    rows = sum(length if window is None else window - 1 for window in windows[layer:])
    return list(range(length - rows, length))


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (e04.check_transplant, (s04.transplant,)),
        (e04.check_divergence, (s04.divergence,)),
        (e04.check_needed, (s04.needed,)),
        (e04.check_replay_kv, (s04.replay_kv,)),
        (e04.check_two_texts, s04.two_texts),
        pytest.param(e04.check_must_keep, (s04.must_keep,), marks=pytest.mark.slow),
    ],
)
def test_solutions_pass(check, given, capsys):
    assert check(*given), capsys.readouterr().out


@pytest.mark.parametrize(
    ("check", "given", "words"),
    [
        (e04.check_transplant, (lambda m, r, layer, s: m.logits(r),), "no effect"),
        (e04.check_transplant, (last_row,), "all positions"),
        (e04.check_transplant, (after_the_block,), "after block 0"),
        (e04.check_transplant, (last_logits,), "shape (97,), expected (1, 97)"),
        (e04.check_divergence, (lambda p, q: s04.divergence(q, p),), "exchanged"),
        (e04.check_divergence, (lambda p, q: s04.divergence(p, q).sum(),), "one number for each"),
        (e04.check_divergence, (no_softmax,), "turned to probabilities"),
        (e04.check_divergence, (from_probabilities,), "subtract the largest logit"),
        (e04.check_needed, (lambda n, layer, p: [p],), "is not enough"),
        (e04.check_needed, (lambda n, layer, p: list(range(p + 1)),), "is too much"),
        (e04.check_needed, (lambda n, layer, p: list(range(p + 2)),), "in the future"),
        (e04.check_replay_kv, (no_replay,), "have the blocks from 0 up to it been run"),
        (e04.check_replay_kv, (wrong_positions,), "which positions"),
        (e04.check_replay_kv, (one_block_too_many,), "one block too many"),
        (e04.check_two_texts, ([1], [2]), "must be equal"),
        (e04.check_two_texts, ([1, 4], [1, 4]), "both texts are"),
        (e04.check_two_texts, ([1, 4], [3, 4]), "not the shortest"),
        (e04.check_must_keep, (whole_windows,), "([1], 0, 1) = [0] is too much"),
        (e04.check_must_keep, (one_window,), "is not enough: later logits change"),
        (e04.check_must_keep, (as_if_all_had_windows,), "is not enough"),
        (e04.check_must_keep, (all_layers,), "is too much"),
        (e04.check_must_keep, (before_the_text,), "has not been read"),
    ],
)
def test_mistakes_are_told_what_is_wrong(check, given, words, capsys):
    assert not check(*given)
    assert words in capsys.readouterr().out

"""Architectures and caches for which the claim fails: each file changes one thing.

Each has ``THEOREM`` (what it refutes), ``refuted(case) -> bool``, and, where there is a cure,
``cured(case) -> bool``. ``proofs/test_counterexamples.py`` finds a smallest case for each.
"""

from __future__ import annotations

import numpy as np

from minikv.decoder import Hook
from minikv.verify import same_bits


def chain(*hooks: Hook) -> Hook:
    """Apply hooks one after the other."""

    def hook(name, value):
        for each in hooks:
            value = each(name, value)
        return value

    return hook


def replace(**streams) -> Hook:
    """Replace activations: ``replace(**{"blocks.1.hook_resid_pre": array})``."""
    return lambda name, value: streams.get(name, value)


def record(kept: dict) -> Hook:
    """Keep every activation."""

    def hook(name, value):
        kept[name] = value
        return value

    return hook


def one_pass(case, ids, *hooks: Hook) -> np.ndarray:
    """Logits of every position of a text, with a changed architecture."""
    return np.asarray(case.model.forward([ids], logits="all", hook=chain(*hooks)))


def call_by_call(case, cache, hook: Hook | None = None) -> np.ndarray:
    """Logits of every position of the case's first text, chunk by chunk through a cache."""
    rows = []
    start = 0
    for count in case.chunks:
        new = [case.ids[start : start + count]]
        rows.append(case.model.forward(new, [cache], "all", hook or chain()))
        start += count
    return np.concatenate(rows)


def patched_at_each_layer(case, architecture, cure: bool = False) -> bool:
    """T2 for a changed architecture: does the donor's stream at layers >= 1 make the outputs?

    ``architecture(memory)`` makes the hook anew for each pass; `memory` is the list of all that it
    carries past the stream. With `cure`, the recipient, which until then has been itself, gets at
    layer l what the donor's memory held there: the state is then the pair of both.
    """
    donor = {}
    memory = []
    held = {}

    def snapshot(name, value):
        if name.endswith("hook_resid_pre"):
            held[name] = list(memory)
        return value

    expected = one_pass(case, case.ids, snapshot, architecture(memory), record(donor))
    for layer in range(1, case.model.config.num_hidden_layers):
        memory = []
        patched = f"blocks.{layer}.hook_resid_pre"

        def patch(name, value, patched=patched, memory=memory):
            if name != patched:
                return value
            if cure:
                memory[:] = held[patched]
            return donor[patched]

        if not same_bits(one_pass(case, case.other, patch, architecture(memory)), expected):
            return False
    return True

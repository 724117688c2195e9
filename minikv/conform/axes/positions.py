"""What position a key was rotated to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..adapter import NotTestedError, Subject
from ..bench import Bench, Pair
from ..schedules import beginning
from ..verdict import Verdict, Word
from .axis import Axis

KEYS = "blocks.0.attn.hook_rot_k"
UNTURNED = "blocks.0.attn.hook_k"


def test(bench: Bench) -> Verdict:
    """Keys of the first layer, made of token and position alone (T10), stand at the right one.

    The first token's key is not turned at all: all positions shifted by one amount change no
    logits where they are rotary, and show here. On a cache, of whatever policy, keys of the first
    layer are those of the uncached pass: rows kept, taken for a position, show here.
    """
    ids = bench.texts[0][:24]
    named = bench.subject.activations(ids)
    if KEYS not in named:
        raise NotTestedError(f"no activation is named {KEYS}")
    comparable = UNTURNED in named and named[UNTURNED].shape == named[KEYS].shape
    if comparable and not bench.subject.fact("key_norm"):
        first = bench.numeric(AXIS.name, [_first(ids)])
        if first.word is Word.BUG:
            said = "the first token's key is turned: all positions are shifted"
            return replace(first, evidence=said, where=KEYS)
    if not bench.subject.can("step_with_cache", "new_cache"):
        return Verdict(AXIS.name, Word.SAME, evidence="the first key is not turned")
    rolling = bench.subject.fact("rolling", ())
    fixed = [name for name in bench.subject.fact("policies", ()) if name not in rolling]
    found = bench.numeric(AXIS.name, [_cached(ids, policy) for policy in (None, *fixed)])
    return replace(found, where=KEYS) if found.word is Word.BUG else found


def _first(ids: tuple[int, ...]) -> Pair:
    """The first key, before and after it is turned to position 0."""
    return Pair(
        "the first key",
        ids,
        lambda subject: _flat(subject.activations(ids)[KEYS])[:1],
        expected=lambda subject: _flat(subject.activations(ids)[UNTURNED])[:1],
    )


def _cached(ids: tuple[int, ...], policy: str | None) -> Pair:
    """The keys of all tokens, made on a cache and without one."""

    def on_a_cache(subject: Subject) -> np.ndarray:
        cache = subject.new_cache() if policy is None else subject.new_cache(policy, 8)
        rows = []
        start = 0
        for count in beginning(len(ids), 4, *[1] * len(ids)):
            made = subject.activations(ids[start : start + count], cache)[KEYS]
            rows.append(_flat(made)[-count:])
            start += count
        return np.concatenate(rows)

    return Pair(
        f"keys on a cache ({policy or 'full'})",
        ids,
        on_a_cache,
        expected=lambda subject: _flat(subject.activations(ids)[KEYS]),
    )


def _flat(keys: np.ndarray) -> np.ndarray:
    """``(T, G, d) -> (T, G * d)``."""
    return keys.reshape(len(keys), -1)


AXIS = Axis("positions", ("run_with_cache",), test)

"""Memory over a conversation of 20 turns (claim 6 of the paper), measured."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np

from ..conversation import Conversation
from ..decoder import forward
from ..errors import InputError
from ..model import Model
from ..progress import Progress, silent
from .policies import policy_cache

SETTINGS = (
    "full",
    "residual:every@128",
    "residual:5@128",
    "residual:embedding@128",
    "residual:embedding@32",
    "residual:tokens@32",
)
_TIMED = 3  # tokens a turn that are decoded one by one; the rest of a reply goes in at once
Row = dict[str, Any]

Turn = tuple[list[int], list[int]]  # token ids of what the user says, template included; the reply


def converse(
    model: Model,
    lines: Sequence[str],
    reply_tokens: int = 20,
    progress: Progress = silent,
    system: str | None = None,
) -> list[Turn]:
    """Hold a conversation, greedily and with the full cache; every reply is cut to a length.

    `system` is an instruction before it.
    """
    conversation = Conversation(model, system)
    turns = []
    for line in lines:
        before = len(conversation.ids)
        unread = conversation.ask(line)
        if conversation.restarts:
            raise InputError("the model's chat template rewrites earlier turns")
        asked = conversation.ids[before:]
        reply = list(model.generate(unread, reply_tokens, conversation.cache, stop=()))
        conversation.answer(reply)
        turns.append((asked, reply))
        progress("memory: the conversation", len(turns), len(lines))
    return turns


def memory(
    model: Model,
    turns: Sequence[Turn],
    settings: Sequence[str] = SETTINGS,
    progress: Progress = silent,
) -> list[Row]:
    """Feed a conversation to caches and watch their memory, turn by turn.

    Parameters
    ----------
    model : Model
    turns : sequence of (user ids, reply ids)
        All caches get the same tokens.
    settings : sequence of str
        ``policy@budget``, see `policy_cache`.

    Returns
    -------
    list of dict, one for each setting and turn
        ``bytes``: K/V, checkpoints and ids held for the tokens seen, by formula (`Cache.nbytes`).
        ``allocated``: what the cache has allocated after the turn, by tracemalloc.
        ``peak``: the most allocated at any instant of the turn, activations included, likewise.
        ``seconds_per_token``: median over the last tokens of the reply, decoded one by one.
    """
    total = sum(len(asked) + len(reply) for asked, reply in turns)
    most_rows = len(settings) * len(turns)
    for layer in model.layers:
        layer.rotary(np.arange(total))  # the tables are the model's, not a cache's
    rows = []
    tracemalloc.start()
    try:
        for setting in settings:
            for row in _watched(model, turns, setting):
                rows.append(row)
                progress(f"memory: {setting}", len(rows), most_rows)
    finally:
        tracemalloc.stop()
    return rows


def _watched(model: Model, turns: Sequence[Turn], setting: str) -> Iterator[Row]:
    """One setting's rows, by a cache that is gone afterwards."""
    before = tracemalloc.get_traced_memory()[0]
    cache = policy_cache(setting, model.weights)
    for number, (asked, reply) in enumerate(turns):
        tracemalloc.reset_peak()
        at_once = [*asked, *reply[:-_TIMED]]
        one_by_one = [[token] for token in reply[-_TIMED:]]
        times = []
        for ids in [at_once, *one_by_one]:
            start = time.perf_counter()
            forward(model.weights, [ids], [cache])
            times.append(time.perf_counter() - start)
        allocated, peak = tracemalloc.get_traced_memory()
        yield {
            "setting": setting,
            "turn": number + 1,
            "tokens": cache.seen,
            "bytes": cache.nbytes,
            "allocated": allocated - before,
            "peak": peak - before,
            "seconds_per_token": median(times[1:]),
        }

"""Kimi Linear: a delta rule with a gate for each channel, and latent attention now and then.

Kimi Team 2025, arXiv 2510.26692. *Rule.* The state of a head is one matrix. A token first lets each
channel fade by its gate, then takes out what is stored under its key, and stores its value there:
``S = (I - b k k^T) diag(a) S + b k v^T``. Every fourth layer attends to all tokens, whose keys and
values are made from one latent row each.

*Departures.* One head, whole numbers and powers of two, so that sums are exact; the chunked form is
the monoid of steps, without the paper's representation of their product.

*Its authors claim* 75 % less cache at better quality. *Here:* the recurrent form is the chunked
form, bit for bit on these numbers. The state is a function of all tokens, and no one row of a
stream gives it back. Latent rows do give keys and values back, and scores may be taken without
making keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same, true
from ..recurrent import Step, by_chunks, states, whole_numbers

TOKENS = 8
WIDTH = 3
ROUNDING = 1e-12


def delta_steps(keys: np.ndarray, values: np.ndarray, gates: np.ndarray) -> list[Step]:
    """A step a token; ``(T, d)``, ``(T, e)``, ``(T, d)``; b is a half."""
    found = []
    for k, v, a in zip(keys, values, gates, strict=True):
        forget = np.eye(len(k)) - 0.5 * np.outer(k, k)
        found.append(Step(forget * a, 0.5 * np.outer(k, v)))
    return found


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    keys = whole_numbers(0, TOKENS, WIDTH)
    values = whole_numbers(1, TOKENS, WIDTH)
    gates = np.where(whole_numbers(2, TOKENS, WIDTH) > 0, 0.5, 1.0)
    start = np.zeros((WIDTH, WIDTH))
    steps = delta_steps(keys, values, gates)
    one_by_one = np.stack(states(steps, start))
    chunked = np.stack(by_chunks(steps, start, 3))
    written = start
    for k, v, a in zip(keys, values, gates, strict=True):
        written = written * a[:, None]
        written = written + 0.5 * np.outer(k, v - k @ written)
    changed = values.copy()
    changed[0] += 1
    after = states(delta_steps(keys, changed, gates), start)[-1]
    rng = np.random.default_rng(0)
    streams, down = rng.normal(size=(TOKENS, 12)), rng.normal(size=(12, 4))
    up, q = rng.normal(size=(4, 6)), rng.normal(size=6)
    latent = streams @ down
    absorbed = latent @ (up @ q)
    moved = np.abs(absorbed - (latent @ up) @ q).max()
    return [
        same("the rule written out", one_by_one[-1], written),
        same("recurrent = chunks of three", chunked, one_by_one),
        same("and chunks of all", np.stack(by_chunks(steps, start, TOKENS)), one_by_one),
        true(
            "the state is one matrix a head",
            one_by_one[-1].shape == (WIDTH, WIDTH),
            f"{WIDTH}x{WIDTH}",
        ),
        other("another first token: the state", after, one_by_one[-1]),
        other("the last step alone", steps[-1](start), one_by_one[-1]),
        same("keys from latent rows, again", (latent @ up), (streams @ down) @ up),
        at_most("scores without making keys", moved, ROUNDING * 100),
    ]


ENTRY = Entry(
    name="kimi_linear",
    title="Kimi Linear",
    arxiv="2510.26692",
    kind=Kind.STATE,
    state="one matrix a head, a function of all tokens; latent rows in the other layers",
    verdict=Exactness.REFUTES,
    reason="Recurrent and chunked form are one; the state is no projection of one row. Keys and "
    "values of the latent layers are.",
    cure="checkpoint the matrix, or run all tokens again",
    read="abstract, and the README of the authors' model",
    theorems=("T1", "T2"),
    demonstrate=demonstrate,
)

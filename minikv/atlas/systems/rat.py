"""RAT: a linear recurrence within a chunk, and softmax attention over chunks.

arXiv 2507.04416. *Rule.* Within a chunk keys and values are running averages, gated alike;
attention reads the last row of each chunk before, and the running row of the token's own.

*Departures.* One head, and the gate is a half, where it is learnt, of the row, for each channel.
Heads share keys before they are averaged, the output has a gate, and positions are those of chunks;
none of that is here.

*Its authors claim* nine times the speed of generation at chunks of 16. *Here* its ends: chunks of
one are softmax attention, one chunk for all is a recurrence. Between, a token's key is a function
of the chunk so far, so that one row of the stream is not enough, and the chunk's rows are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same
from ..quantising import softmax

TOKENS = 8
GATE = 0.5
ROUNDING = 1e-12


def averaged(rows: np.ndarray, chunk: int) -> np.ndarray:
    """Running gated averages that begin anew with each chunk, ``(T, d)``."""
    out = np.empty_like(rows)
    for place, row in enumerate(rows):
        out[place] = row if place % chunk == 0 else GATE * out[place - 1] + (1 - GATE) * row
    return out


def rat(q: np.ndarray, k: np.ndarray, v: np.ndarray, chunk: int) -> np.ndarray:
    """Outputs, ``(T, d)``."""
    keys = averaged(k, chunk)
    values = averaged(v, chunk)
    out = []
    for place, asked in enumerate(q):
        ends = [*range(chunk - 1, place // chunk * chunk, chunk), place]
        out.append(softmax(keys[ends] @ asked) @ values[ends])
    return np.stack(out)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal softmax attention, ``(T, d)``."""
    scores = np.where(np.tri(len(q)) > 0, q @ k.T, -np.inf)
    return softmax(scores) @ v


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    q, k, v = np.random.default_rng(0).normal(size=(3, TOKENS, 4))
    ones = np.abs(rat(q, k, v, 1) - attention(q, k, v)).max()
    whole = rat(q, k, v, TOKENS)
    ends = [3, 5]  # what token 5 reads: the end of the first chunk, and its own row
    keys, values = averaged(k, 4)[ends], averaged(v, 4)[ends]
    changed = k.copy()
    changed[4] += 1.0  # the first of the second chunk of four
    return [
        at_most("chunks of one = softmax attention", ones, ROUNDING),
        same("one chunk = the recurrence", whole, averaged(v, TOKENS)),
        same("chunks of four: token 5", rat(q, k, v, 4)[5], softmax(keys @ q[5]) @ values),
        other("chunks of four are neither", rat(q, k, v, 4), whole),
        same(
            "a key of the next chunk knows its own alone",
            averaged(changed, 4)[:4],
            averaged(k, 4)[:4],
        ),
        other("a key of its own chunk knows it", averaged(changed, 4)[5], averaged(k, 4)[5]),
        same("made again from the chunk's rows", averaged(k[4:], 4), averaged(k, 4)[4:]),
    ]


ENTRY = Entry(
    name="rat",
    title="RAT",
    arxiv="2507.04416",
    kind=Kind.STATE,
    state="the last row of each chunk, and the running row of the newest",
    verdict=Exactness.REFUTES,
    reason="A key is a function of its chunk so far, not of one row; chunks of one are softmax "
    "attention, and one chunk is a recurrence.",
    cure="make a chunk's keys again from all its rows",
    read="abstract, and the authors' code: its slow layer",
    theorems=("T1",),
    demonstrate=demonstrate,
)

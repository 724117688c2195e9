"""Compiler-first SSD: one source for all machines, and a state of fixed size.

Santoni 2026, arXiv 2603.09555, of Mamba-2. *Rule.* ``S = a S + b x^T``, ``y = c^T S`` with a number
a for each token; or, the same, attention without softmax, whose mask holds the products of the a's.

*Departures.* One head, whole numbers and powers of two, so that sums are exact; no compiler.

*Its authors claim* the reference's tokens over 64 steps, and its hidden states to float32's
rounding, on three kinds of machines. *Here:* recurrent, chunked and dual form have the same bits on
these numbers; with others they agree to rounding, and not in bits. The state is one matrix, however
long the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same
from ..recurrent import Step, by_chunks, states, whole_numbers

TOKENS = 9
WIDTH = 4
ROUNDING = 1e-12

Inputs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""a ``(T,)``, b and c ``(T, d)``, x ``(T, e)``."""


def recurrent(given: Inputs, size: int = 0) -> np.ndarray:
    """Outputs ``(T, e)``, token by token, or in chunks."""
    a, b, c, x = given
    steps = [Step(a[t] * np.eye(WIDTH), np.outer(b[t], x[t])) for t in range(len(a))]
    start = np.zeros((WIDTH, WIDTH))
    found = by_chunks(steps, start, size) if size else states(steps, start)
    return np.stack([c[t] @ state for t, state in enumerate(found)])


def dual(given: Inputs) -> np.ndarray:
    """Outputs as masked attention, ``(T, e)``."""
    a, b, c, x = given
    logs = np.array(
        [
            [np.prod(a[s + 1 : t + 1]) if s <= t else 0.0 for s in range(len(a))]
            for t in range(len(a))
        ]
    )
    return (logs * (c @ b.T)) @ x


def inputs(seed: int, whole: bool) -> Inputs:
    """Whole numbers and powers of two, or any."""
    if whole:
        b, c, x = (whole_numbers(seed + n, TOKENS, WIDTH) for n in range(3))
        return np.where(whole_numbers(seed + 3, TOKENS, 1)[:, 0] > 0, 1.0, 0.5), b, c, x
    rng = np.random.default_rng(seed)
    b, c, x = rng.normal(size=(3, TOKENS, WIDTH))
    return rng.uniform(0.5, 1.0, TOKENS), b, c, x


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    exact = inputs(0, whole=True)
    floats = inputs(0, whole=False)
    plain = recurrent(exact)
    moved = np.abs(dual(floats) - recurrent(floats)).max()
    early = (
        exact[0],
        exact[1],
        exact[2],
        exact[3] + np.eye(TOKENS, WIDTH) * (np.arange(TOKENS) < 1)[:, None],
    )
    return [
        same("recurrent = chunks of four", recurrent(exact, 4), plain),
        same("recurrent = dual", dual(exact), plain),
        at_most("any numbers: dual and recurrent", moved, ROUNDING),
        other("but not in bits", dual(floats), recurrent(floats)),
        other("another first token", recurrent(early), plain),
    ]


ENTRY = Entry(
    name="compiler_first_ssd",
    title="Compiler-first SSD",
    arxiv="2603.09555",
    kind=Kind.STATE,
    state="one matrix a head, a function of all tokens",
    verdict=Exactness.REFUTES,
    reason="Recurrent, chunked and dual form are one, in bits where sums are exact; the state is "
    "no projection of one row.",
    cure="checkpoint the matrix, or run all tokens again",
    read="abstract, and the authors' code: its model",
    theorems=("T1", "T2"),
    demonstrate=demonstrate,
)

"""Informed routing: a forecaster says what a layer would have added, and stands in for it.

arXiv 2510.13831. *Rule.* A light linear forecaster predicts a unit's output from its input; where
the forecast is good the unit is not run.

*Departures.* The unit is the MLP of layer 1; the forecaster is a least-squares fit on another text,
and the router executes where a row's first number is positive.

*Its authors claim* less computation at the same quality than routing without a forecast. *Here:* a
replay that takes the same route has the bits; another route has not, and what the stream then is
off by is what the forecast was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import Array, to_numpy
from ...layers import Hook
from ..entry import Comparison, Entry, Exactness, Kind, at_most, other, same
from ..ground import decoded, full_logits, new_full, small_model, text
from ..routes import Route, by_content

UNIT = "blocks.1."
ROUNDING = 1e-5  # three roundings to float32 of numbers below 32: 3 * 2**-24 * 32 < 6e-6


def fitted() -> np.ndarray:
    """The forecaster, ``(D, D)``: least squares from the MLP's input to its output."""
    _, activations = small_model().run_with_cache(text(4))
    given, made = (
        to_numpy(activations[UNIT + name], dtype=np.float64)
        for name in ("ln2.hook_normalized", "hook_mlp_out")
    )
    ridge = given.T @ given + 1e-3 * np.eye(given.shape[1])
    return np.linalg.solve(ridge, given.T @ made)


def forecast(route: Route, matrix: np.ndarray) -> Hook:
    """A hook by which rows that a route leaves out get the forecast in place of the MLP."""
    read: list[np.ndarray] = []

    def hook(name: str, value: Array) -> Array:
        if name == UNIT + "ln2.hook_normalized":
            read[:] = [to_numpy(value)]
        if name == UNIT + "hook_mlp_out":
            # row by row, so that a row does not know the call that it is made in
            guesses = [(row.astype(np.float64) * matrix.T).sum(axis=-1) for row in read[0]]
            works = route(read[0])[:, None]
            return np.where(works, to_numpy(value), np.stack(guesses).astype(np.float32))
        return value

    return hook


def demonstrate() -> Sequence[Comparison]:
    """The comparisons of the entry, controls among them."""
    model = small_model()
    matrix = fitted()
    hook = forecast(by_content, matrix)
    kept: dict[str, np.ndarray] = {}

    def look(name: str, value: Array) -> Array:
        kept[name] = to_numpy(value)
        return value

    routed = to_numpy(model.forward([text()], None, "all", hook))
    nothing = forecast(lambda rows: np.ones(len(rows), dtype=bool), matrix)
    elsewhere = forecast(lambda rows: ~by_content(rows), matrix)
    model.forward([text()], None, "all", look)
    made = kept[UNIT + "hook_mlp_out"]
    works = by_content(kept[UNIT + "ln2.hook_normalized"])
    guess = kept[UNIT + "ln2.hook_normalized"].astype(np.float64) @ matrix
    streams: dict[str, np.ndarray] = {}

    def follow(name: str, value: Array) -> Array:
        streams[name] = to_numpy(hook(name, value))
        return streams[name]

    model.forward([text()], None, "all", follow)
    off = np.abs(streams[UNIT + "hook_resid_post"] - kept[UNIT + "hook_resid_post"]).max(axis=1)
    missed = np.abs(guess - made).max(axis=1) + ROUNDING
    return [
        same("every token executed = the full cache", decoded(new_full(), nothing), full_logits()),
        same("the same route, call by call", decoded(new_full(), hook), routed),
        other("another route", to_numpy(model.forward([text()], None, "all", elsewhere)), routed),
        at_most(
            "the stream is off by the forecast's error", (off[~works] / missed[~works]).max(), 1.0
        ),
        same("where it was executed it is not", off[works], np.zeros_like(off[works])),
    ]


ENTRY = Entry(
    name="informed_routing",
    title="Informed routing",
    arxiv="2510.13831",
    kind=Kind.STATE,
    state="the stream; the route is a function of it, the forecaster a weight",
    verdict=Exactness.BOUNDED,
    reason="The same route gives the bits. Otherwise the stream behind the unit is off by what "
    "the forecast was.",
    read="abstract; neither its code nor the text of its method was found",
    theorems=("T3", "T6"),
    demonstrate=demonstrate,
)

"""Equation 22: what truncating a score matrix to rank r can change of a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...arrays import to_numpy
from ...experiments.plots import labelled, lines
from ...experiments.ranks import Head, Truncation, heads, truncation
from ...experiments.texts import read_prompts
from ...model import Model
from ..claim import Claim, Figures, Finding, Setting, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKS = (1, 8, 15, 32, 48, 62)
TOKENS = 24
EVERY = 6  # layers: a quick run takes one in so many
TEXT = "rows of a text"
DIRECTIONS = "singular vectors r + 1"


def run(setting: Setting) -> Finding:
    """Compare rank-r scores with scores, on rows of a text and where the bound is attained."""
    streams = read_streams(setting.model(setting.names[0], "exact"))
    model = setting.model(setting.names[0])
    every = setting.choose(1, EVERY)
    found: dict[tuple[int, str], list[Truncation]] = {}
    for head in heads(model, every):
        for rank in RANKS:
            for kind, left, right in pairs(head, streams[head.layer.index], rank):
                found.setdefault((rank, kind), []).append(truncation(head, left, right, rank))
        setting.progress("equation 22", head.layer.index + 1, len(model.layers))
    figures: list[dict[str, Any]] = [
        {
            "rank": rank,
            "rows": kind,
            "heads": len(told),
            "error": max(each.error for each in told),
            "least_control": min(each.control for each in told),
            "rounding": max(each.rounding for each in told),
        }
        for (rank, kind), told in sorted(found.items())
    ]
    columns = (
        "rank r",
        "scores of",
        "heads",
        "error / bound, largest",
        "error / bound with sigma_{r+2}, least over the heads",
        "of the bound for rounding",
    )
    rows = tuple(tuple(row.values()) for row in figures)
    ratios = {"ratios": figures}
    return Finding(*told(ratios), columns, rows, ratios)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Verdict and reason."""
    return judged(figures["ratios"])


def read_streams(model: Model) -> list[np.ndarray]:
    """What each layer's projections read of the first tokens of our first text, ``(T, D)``."""
    if model.tokenizer is None:
        ids = list(range(TOKENS))
    else:
        ids = model.tokenizer.encode(next(iter(read_prompts().values())))[:TOKENS]
    activations = model.run_with_cache(ids)[1]
    return [
        to_numpy(activations[f"blocks.{layer.index}.ln1.hook_normalized"], dtype=np.float64)
        for layer in model.layers
    ]


def pairs(
    head: Head, stream: np.ndarray, rank: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Rows of a text, and the two directions for which the bound is an equality."""
    yield TEXT, stream, stream
    yield DIRECTIONS, head.factors.left.T[rank : rank + 1], head.factors.right.T[rank : rank + 1]


def judged(figures: Sequence[Figures]) -> tuple[Verdict, str]:
    """Whether the inequality holds, and whether less would not."""
    worst = max(row["error"] for row in figures)
    text = max(row["error"] for row in figures if row["rows"] == TEXT)
    control = min(row["least_control"] for row in figures if row["rows"] == DIRECTIONS)
    if worst > 1:
        return Verdict.REFUTED, f"An error is {worst:.6g} times the bound."
    if control <= 1:
        return Verdict.CANNOT, "sigma_{r+2} bounds the errors too: these rows do not tell."
    return Verdict.REPRODUCED, (
        "It holds for every head and rank that is run. No smaller number would do: for the "
        "singular vectors r + 1 the two sides are equal but for rounding, and with sigma_{r+2} "
        "in place of sigma_{r+1} the inequality is false for every head (by a factor of "
        f"{control:.4f} at least). On rows of a text errors are at most {text:.2g} of the bound. "
        "The rows are the stream after its norm, which is what W_q and W_k read, and the scores "
        "are those before the rotary positions. The rotated score has another matrix for each "
        "distance of the two positions (figure 5)."
    )


def plot(figure: Figure, figures: Figures) -> None:
    """The largest error against the rank."""
    axes = labelled(figure.subplots(), "rank r", "largest error / bound (1: equality)")
    points = [(row["rows"], row["rank"], row["error"]) for row in figures["ratios"]]
    lines(axes, points, x_ticks={row["rank"] for row in figures["ratios"]}, bottom=0)
    axes.legend(loc="center right", frameon=False, fontsize=14)


CLAIM = Claim(
    id="equation-22",
    where="Section 3.3, equation 22",
    title="A rank-r score is off by at most sigma_{r+1} |h_i| |h_j| / sqrt(d)",
    says=(
        "in section 3.3: with W_q W_k^T of a head cut to its r largest singular values, a score "
        "differs from the full one by at most sigma_{r+1} |h_i| |h_j| / sqrt(d)."
    ),
    protocol=(
        f"every query head, float64, ranks {', '.join(map(str, RANKS))}; all pairs of {TOKENS} "
        "rows of a text, whose streams are those of exact arithmetic, and the two singular vectors "
        "for which the two sides should be equal; "
        "the control puts sigma_{r+2} in the place of sigma_{r+1}. What the rounding of "
        "float64 may add is bounded and added to the bound "
        f"(`minikv.experiments.ranks.truncation`). --quick: one layer in {EVERY}."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
)

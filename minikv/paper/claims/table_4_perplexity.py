"""Perplexity: full cache, no cache and KV-Direct in every bit, and windows in three readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...arrays import to_numpy
from ...decoder import forward
from ...experiments import policy_cache, read_passages
from ...experiments.plots import labelled, lines, printed
from ...experiments.score import at_once, perplexity, pieces, step_by_step
from ...model import Model
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict
from ..six import SMOLLM2, of_the_paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOWS = (128, 64, 32)
PAPER = {
    "smollm2-135m": 26.46,
    "qwen2.5-0.5b": 24.63,
    "qwen3-0.6b": 18.63,
    "deepseek-r1-distill-qwen-1.5b": 50.37,
    "qwen2.5-1.5b": 17.04,
}
"""Perplexity, by the model's shape."""
PAPER_FULL = PAPER[SMOLLM2]
PAPER_WINDOW = {128: 38.2, 64: 65.3, 32: 135.4}
KV_DIRECT = ("residual:every@32", "residual:embedding@32")
READINGS = ("older keys dropped", "cut into pieces", "last tokens anew")
SAMPLED = 32  # the third reading reads a whole window for each token: one token of so many


def same_bits(model: Model, ids: Sequence[int], setting: Setting) -> dict[str, int | bool]:
    """Feed a text token by token, and compare every logit with those of one pass without a cache.

    Returns the rows of logits compared, and whether all have the same bits, by policy.
    """
    whole = to_numpy(model.logits(ids))
    policies = ("full", *KV_DIRECT)
    caches = [policy_cache(name, model.weights) for name in policies]
    equal: dict[str, int | bool] = dict.fromkeys(policies, True)
    for position, token in enumerate(ids):
        rows = to_numpy(forward(model.weights, [[token]] * len(caches), caches))
        for name, row in zip(policies, rows, strict=True):
            equal[name] = bool(equal[name]) and row.tobytes() == whole[position].tobytes()
        setting.progress("perplexity: bits", position + 1, len(ids))
    for length in (1, len(ids) // 2, len(ids) - 1):  # no cache is the text read again each time
        again = to_numpy(forward(model.weights, [ids[:length]]))[0]
        equal["none"] = bool(equal.get("none", True)) and (
            again.tobytes() == whole[length - 1].tobytes()
        )
    return {"rows": len(ids), **equal}


def dropped(model: Model, texts: Sequence[list[int]], setting: Setting) -> dict[int, float]:
    """Perplexity by window, where a token sees the keys of that many before it, and no others.

    These keys were made when the window stood further back, and still know what was there.
    """
    jobs = [
        (ids, policy_cache(f"window@{window}", model.weights))
        for window in WINDOWS
        for ids in texts
    ]
    scored = step_by_step(model, jobs, setting.progress)
    count = len(texts)
    return {
        window: perplexity(scored[number * count : (number + 1) * count])
        for number, window in enumerate(WINDOWS)
    }


def cut(model: Model, texts: Sequence[list[int]]) -> dict[int, float]:
    """Perplexity by window, where the text is cut into pieces that know nothing of each other."""
    return {
        window: perplexity(
            [at_once(model, piece) for ids in texts for piece in pieces(ids, window)]
        )
        for window in WINDOWS
    }


def anew(
    model: Model, texts: Sequence[list[int]], setting: Setting
) -> tuple[float, dict[int, float]]:
    """Perplexity by window, where each token is read off a new pass over the window before it.

    It is taken at one token in `SAMPLED`, where the window is full. The first figure is the full
    cache's at the same tokens.
    """
    places = range(max(WINDOWS), min(map(len, texts)), SAMPLED)
    full = perplexity([at_once(model, ids)[np.array(places) - 1] for ids in texts])
    found = {}
    for number, window in enumerate(WINDOWS):
        windows = [ids[place - window : place + 1] for ids in texts for place in places]
        found[window] = perplexity([at_once(model, ids)[-1:] for ids in windows])
        setting.progress("perplexity: windows anew", number + 1, len(WINDOWS))
    return full, found


def run(setting: Setting) -> Finding:
    """Compare bits under exact arithmetic, and perplexities in float32."""
    name = setting.names[0]
    exact = setting.model(name, "exact")
    length = setting.choose(512, 160)
    passages = list(read_passages().values())[: setting.choose(5, 1)]
    assert exact.tokenizer is not None
    texts = [pieces(exact.tokenizer.encode(text), length)[0] for text in passages]
    compared = same_bits(exact, texts[0][: setting.choose(96, 24)], setting)
    model = setting.model(name)
    full = perplexity([at_once(model, ids) for ids in texts])
    full_there, windows_anew = anew(model, texts, setting)
    found = (dropped(model, texts, setting), cut(model, texts), windows_anew)
    bases = (full, full, full_there)
    own = of_the_paper(model.config)
    figures = {
        "bits": compared,
        "texts": len(texts),
        "length": length,
        "full": full,
        "paper": PAPER.get(own),
        "windows": [
            {
                "reading": reading,
                "window": window,
                "full": base,
                "perplexity": values[window],
                "times_full": values[window] / base,
                "paper_times_full": PAPER_WINDOW[window] / PAPER_FULL if own == SMOLLM2 else None,
            }
            for reading, base, values in zip(READINGS, bases, found, strict=True)
            for window in WINDOWS
        ],
    }
    return told_of(figures)


def distance(figures: Figures, reading: str) -> float:
    """How far a reading is from the paper: the largest factor between times the full cache."""
    ratios = [
        row["times_full"] / row["paper_times_full"]
        for row in figures["windows"]
        if row["reading"] == reading
    ]
    return max(max(ratio, 1 / ratio) for ratio in ratios)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Whether all bits are the same, and how far each reading of a window is from the paper."""
    bits = figures["bits"]
    if not all(bits[name] for name in ("full", "none", *KV_DIRECT)):
        return Verdict.REFUTED, "Some logits have other bits than those without a cache."
    return Verdict.ONE_READING, (
        "Full cache, no cache and KV-Direct (one vector a layer, and one for all) have the same "
        f"bits in every one of {bits['rows']} rows of logits, so that these have one perplexity. "
        f"The figures themselves need WikiText-2 (`minikv score FILE`). {_of_readings(figures)}"
    )


def told_of(figures: Figures) -> Finding:
    """The verdict and the table."""
    rows: list[tuple[Cell, ...]] = [
        (
            "full = no cache = KV-Direct",
            None,
            figures["paper"],
            figures["full"],
            1.0,
            1.0,
        )
    ]
    rows += [
        (
            row["reading"],
            row["window"],
            row["paper_times_full"] and PAPER_WINDOW[row["window"]],
            row["perplexity"],
            row["paper_times_full"],
            row["times_full"],
        )
        for row in figures["windows"]
    ]
    columns = (
        "reading",
        "window (tokens)",
        "paper: perplexity (WikiText-2)",
        "ours: perplexity (our text)",
        "paper: times full",
        "ours: times full",
    )
    return Finding(*told(figures), columns, tuple(rows), figures)


def _of_readings(figures: Figures) -> str:
    """What the windows' figures say of what the paper's window does."""
    if any(row["paper_times_full"] is None for row in figures["windows"]):
        return "Of this model the paper has no figures with a window."
    away = sorted((distance(figures, reading), reading) for reading in READINGS)
    order = ", ".join(f"'{reading}' {factor:.2f}" for factor, reading in away)
    near = sum(factor <= 1.1 * away[0][0] for factor, _ in away)
    return (
        "By the largest factor between the paper's multiple of the full cache's perplexity and "
        f"ours, over its windows, the readings of a window come in this order: {order}. The first "
        f"{near} are within a tenth of each other."
    )


def plot(figure: Figure, figures: Figures) -> None:
    """Perplexity of a window, times the full cache's, by window."""
    axes = labelled(
        figure.subplots(),
        "window (tokens)",
        "perplexity / perplexity of the full cache",
        "Perplexity with a window",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    rows = figures["windows"]
    paper = [(row["window"], row["paper_times_full"]) for row in rows[: len(WINDOWS)]]
    if None not in dict(paper).values():
        printed(axes, "the paper", paper, "P")
    points = [(row["reading"], row["window"], row["times_full"]) for row in rows]
    lines(axes, points, x_ticks=WINDOWS)
    ticks = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    axes.set_yticks(ticks, [f"{tick}" for tick in ticks])
    highest = max(max(row["times_full"], row["paper_times_full"] or 0.0) for row in rows)
    axes.set_ylim(0.9, 1.3 * highest)


CLAIM = Claim(
    id="table-4-perplexity",
    where="Table 4, perplexity",
    title="KV-Direct has the full cache's perplexity, and a window has not",
    says=(
        "WikiText-2 perplexity is the same with the full cache and with KV-Direct (SmolLM2 "
        f"{PAPER_FULL}, Qwen2.5-0.5B 24.63, Qwen3-0.6B 18.63, DeepSeek-R1-1.5B 50.37, Qwen2.5-1.5B "
        "17.04); SmolLM2 with a window of 128, 64 and 32 has 38.2, 65.3 and 135.4."
    ),
    protocol=(
        "the bits of every logit under exact arithmetic, token by token; perplexities in float32 "
        "on the first 512 tokens of each of five passages of Darwin's Origin of Species (1859, "
        "public domain), each a text of its own. The paper says neither in what pieces it reads "
        "WikiText-2 nor what its window does: (1) older keys are dropped, as in its figures 4 and "
        "9; (2) the text is cut into pieces of the window's length; (3) each token is read off a "
        f"new pass over the window before it (at one token in {SAMPLED}, against the full cache "
        "at the same)."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
    exact=("bits",),
)

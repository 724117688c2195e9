"""Figure 5: how many directions of a head's score matrix hold nine tenths of its energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from ...experiments.plots import below, labelled, lines
from ...experiments.ranks import READINGS, ROTATED, Reading, heads
from ...model import Model
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict
from ..six import GEMMA, QWEN_SMALL, SMOLLM2, of_the_paper
from .table_1 import printed_as

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {SMOLLM2: "21.2", QWEN_SMALL: "20.0", GEMMA: "70.2"}
NOT_HERE = {
    QWEN_SMALL: ("Qwen2.5-0.5B: not here", "20.0"),
    GEMMA: ("Gemma 3 4B: not here", "70.2 (median 70)"),
}
FORMULA = READINGS[0]


def run(setting: Setting) -> Finding:
    """Take every head's effective rank, by the formula and by what may have been meant."""
    rows: list[tuple[Cell, ...]] = []
    models = {}
    found_here: list[str] = []
    for number, name in enumerate(setting.names):
        model = setting.model(name)
        ranks = {
            reading.text: by_layer(model, reading)
            for reading in setting.choose((*READINGS, *ROTATED), READINGS)
        }
        own = of_the_paper(model.config)
        found_here.append(own)
        paper = PAPER.get(own)
        rows += [(name, text, paper, *_summary(found)) for text, found in ranks.items()]
        models[name] = {
            "paper": paper,
            "of_the_paper": own,
            "width": model.config.head_dim,
            "ranks": ranks,
        }
        setting.progress("effective ranks", number + 1, len(setting.names))
    rows += [
        (told, FORMULA.text, printed, None, None, None, None)
        for name, (told, printed) in NOT_HERE.items()
        if name not in found_here
    ]
    columns = ("model", "reading", "the paper's mean", "mean", "median", "heads", "largest")
    figures = {"models": models}
    return Finding(*told(figures), columns, tuple(rows), figures)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Verdict and reason."""
    return _judged(figures["models"])


def by_layer(model: Model, reading: Reading) -> list[list[int]]:
    """The effective rank of each query head, layer by layer."""
    found: list[list[int]] = [[] for _ in model.layers]
    for head in heads(model):
        found[head.layer.index].append(reading.rank(head))
    return found


def _summary(ranks: Sequence[Sequence[int]]) -> tuple[float, float, int, int]:
    """Mean, median, how many, and the largest."""
    flat = [rank for layer in ranks for rank in layer]
    return fmean(flat), float(median(flat)), len(flat), max(flat)


def _judged(models: Mapping[str, Figures]) -> tuple[Verdict, str]:
    """The verdict, from the models of which the paper prints a mean."""
    told = []
    verdict = Verdict.CANNOT
    for name, figures in models.items():
        if figures["paper"] is None:
            continue
        means = {text: _summary(ranks)[0] for text, ranks in figures["ranks"].items()}
        formula = means.pop(FORMULA.text)
        verdict = Verdict.REPRODUCED
        if not printed_as(formula, figures["paper"]):
            verdict = Verdict.DIFFERS
        printed = float(figures["paper"])
        nearest = sorted(means, key=lambda text: abs(means[text] - printed))[:3]
        near = "; ".join(f"{text}: {means[text]:.2f}" for text in nearest)
        of_it = (
            f"By the paper's formula {name} has a mean of {formula:.2f}, where it prints "
            f"{figures['paper']}. Nearest to that"
        )
        if figures["of_the_paper"] != SMOLLM2:
            told.append(f"{of_it}, of the other readings: {near}.")
            continue
        told.append(
            f"{of_it}, by the mean alone, are readings that its text does not have: {near}. The "
            "sum of sigma^4 is that of singular values that were squared before; W_q W_k^T of "
            "matrices as files hold them is a (d, d) product, and no head's score matrix."
        )
    here = [figures["of_the_paper"] for figures in models.values()]
    if QWEN_SMALL not in here and GEMMA not in here:
        told.append(
            "Qwen2.5-0.5B and Gemma 3 4B are not run: --model runs their weights. Gemma 3 270M "
            "stands for its family alone, which normalises queries and keys before they meet, so "
            "that there the matrix is not all of a score."
        )
    return verdict, " ".join(told)


def plot(figure: Figure, figures: Figures) -> None:
    """The mean of each layer's heads, in each reading; and the paper's mean."""
    models = figures["models"]
    many = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (name, told) in zip(many, models.items(), strict=True):
        title = f"{name} (at most {told['width']})"
        labelled(axes, "layer", "effective rank, mean of heads", title)
        points = [
            (reading.text, float(layer), fmean(ranks))
            for reading in READINGS
            for layer, ranks in enumerate(told["ranks"][reading.text])
        ]
        layers = len(told["ranks"][FORMULA.text])
        if told["paper"] is not None:
            mean = float(told["paper"])
            text = f"the paper's mean over heads and layers, {told['paper']}"
            axes.axhline(mean, color="grey", linewidth=4, alpha=0.6, label=text)
        lines(axes, points, x_ticks=range(0, layers, 5), bottom=0)
    below(figure, many, 2)


CLAIM = Claim(
    id="figure-5",
    where="Figure 5",
    title="Scores have a low effective rank",
    says=(
        "with M = W_q W_k^T of a head and its effective rank the smallest r whose r largest "
        "sigma^2 are 90 % of all, the mean over heads is 21.2 of 64 for SmolLM2-135M, 20.0 for "
        "Qwen2.5-0.5B, and 70.2 (median 70) of 256 for Gemma 3 4B."
    ),
    protocol=(
        "all query heads of all layers, in float64, each with the key head of its group; the "
        "paper's formula; the same with the weight of the norm that both projections read "
        "through; sigma^4; the product of the matrices as they are stored; and the formula with "
        "the rotation that stands between query and key, which the paper leaves out."
    ),
    models=("smollm2-135m-instruct", "gemma-3-270m"),
    run=run,
    told=told,
    plot=plot,
)

"""Figure 6: generation from keys and values that are projected to a lower rank."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...decoder import Weights
from ...experiments.compare import compare, summary
from ...experiments.low_rank import Truncated
from ...experiments.plots import below, labelled, lines, printed
from ...experiments.texts import read_prompts
from ...model import Model
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict
from ..six import SMOLLM2, of_the_paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATCH = "match"
KL = "kl"
PAPER = {
    64: {MATCH: "100 %", KL: "5e-4"},
    32: {MATCH: "15 % (5 to 15)", KL: "10.9"},
}
BELOW_15 = {MATCH: "5 to 10 %", KL: "above 11"}
RANKS = (48, 32, 14, 8, 4)  # below all directions
TEXTS = 5
PROMPT = 96  # tokens of each text
NEW_TOKENS = 20  # the paper's matches are multiples of 5 %
TEXT = "directions of the text"
WEIGHTS = "directions of the weights"
ROUNDED = "the same, rounded to bfloat16"
ALL_ROUNDED = "all operations of the model rounded to bfloat16"
SHORT = 24  # tokens of a prompt, and
FEW = 6  # new ones, where every operation is rounded


def run(setting: Setting) -> Finding:
    """Decode with truncated caches beside the full one."""
    model = setting.model(setting.names[0])
    width = model.config.head_dim
    texts = prompts(model, setting.choose(TEXTS, 2))
    ranks = [width, *(rank for rank in setting.choose(RANKS, (32,)) if rank < width)]
    found = [
        *_compared(setting, model, texts, ranks, {TEXT: "text", WEIGHTS: "weights"}, False),
        *_compared(setting, model, texts, [width], {f"{TEXT}; {ROUNDED}": "text"}, True),
        *_all_rounded(setting),
    ]
    found.sort(key=lambda row: -row["budget"])
    own = of_the_paper(model.config) == SMOLLM2
    rows = tuple(_row(row, own) for row in found)
    columns = (
        "rank r",
        "directions",
        "the paper's match",
        "match",
        "least match of a text",
        "the paper's D_KL",
        "D_KL, same text (nats)",
        "D_KL, free runs (nats)",
    )
    figures = [
        {
            "rank": row["budget"],
            "directions": row["policy"],
            "match": row["match"],
            "kl_same_text": row["kl_mean"],
            "kl_free": row["kl_free"],
        }
        for row in found
    ]
    kept = {"rows": figures, "width": width, "texts": len(texts), "of_the_paper": own}
    return Finding(*told(kept), columns, rows, kept)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Verdict and reason."""
    return judged(figures["rows"], figures["width"])


def prompts(model: Model, count: int) -> dict[str, list[int]]:
    """The beginnings of our texts, as token ids."""
    if model.tokenizer is None:
        return {f"text {number}": list(range(number, 12 + number)) for number in range(count)}
    texts = list(read_prompts().items())[:count]
    return {name: list(model.tokenizer.encode(text))[:PROMPT] for name, text in texts}


def _compared(
    setting: Setting,
    model: Model,
    texts: dict[str, list[int]],
    ranks: Sequence[int],
    bases: dict[str, str],
    rounded: bool,
) -> list[dict[str, Any]]:
    makers = {text: partial(_truncated, basis, rounded) for text, basis in bases.items()}
    return _together(compare(model, texts, ranks, NEW_TOKENS, makers, setting.progress))


def _together(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All texts of a policy and rank, the divergence of free runs too."""
    told = summary(rows)
    for row in told:
        same = (each for each in rows if all(each[key] == row[key] for key in ("policy", "budget")))
        row["kl_free"] = fmean(each["kl_free"] for each in same)
    return told


def _all_rounded(setting: Setting) -> list[dict[str, Any]]:
    """All directions where every operation of the model is rounded; slow, so with short texts."""
    if setting.quick:
        return []
    model = setting.model(setting.names[0], "bfloat16")
    texts = {name: ids[:SHORT] for name, ids in prompts(model, 2).items()}
    makers = {f"{TEXT}; {ALL_ROUNDED}": partial(_truncated, "text", True)}
    width = model.config.head_dim
    return _together(compare(model, texts, [width], FEW, makers, setting.progress))


def _truncated(basis: str, rounded: bool, weights: Weights, rank: int) -> Truncated:
    return Truncated(weights, rank, basis, rounded)


def _row(row: dict[str, Any], own: bool) -> tuple[Cell, ...]:
    """A line; with the paper's figures where the model is its `own`."""
    rank = row["budget"]
    theirs = PAPER.get(rank, {})
    if rank < 15:
        theirs = BELOW_15
    if not own:
        theirs = {}
    return (
        rank,
        row["policy"],
        theirs.get(MATCH),
        f"{100 * row['match']:.0f} %",
        f"{100 * row['worst_match']:.0f} %",
        theirs.get(KL),
        row["kl_mean"],
        row["kl_free"],
    )


def judged(figures: Sequence[Figures], width: int) -> tuple[Verdict, str]:
    """What the truncated runs say, and what a rank of d measures."""
    whole = {row["directions"]: row["kl_same_text"] for row in figures if row["rank"] == width}
    cut = [row for row in figures if row["rank"] < width]
    matches = [100 * row["match"] for row in cut]
    same = [row["kl_same_text"] for row in cut]
    free = [row["kl_free"] for row in cut]
    plain = max(whole[TEXT], whole[WEIGHTS])
    rounding = (
        f"{whole[f'{TEXT}; {ROUNDED}']:.0e} with K, V, directions and products rounded to bfloat16"
    )
    everything = whole.get(f"{TEXT}; {ALL_ROUNDED}")
    if everything is not None:
        rounding += f", and {everything:.0e} with every operation of the model rounded so"
    most = max(row["rank"] for row in cut)
    if min(matches) == 100:
        return Verdict.REFUTED, f"Every token matches at ranks up to {most}."
    like = [row["kl_free"] for row in cut if row["directions"] == WEIGHTS and row["rank"] <= 32]
    return Verdict.DIFFERS, (
        f"With truncation {min(matches):.0f} to {max(matches):.0f} % of tokens match at ranks up "
        f"to {most}. How much is lost depends on whose directions are kept, which the paper does "
        f"not say: D_KL is {span(same)} nats on the same text, and {span(free)} between free runs, "
        "which compare what follows two texts. With the weights' directions free runs have "
        f"{span(like)} from rank 32 down, where the paper has 10.9 and more. A head has {width} "
        f"directions, so that r = {width} cuts nothing: there D_KL is {plain:.0e} in float32, "
        f"{rounding}, where the paper has 5e-4."
    )


def span(values: Sequence[float]) -> str:
    """From the least to the most."""
    return f"{min(values):.1f} to {max(values):.1f}"


def plot(figure: Figure, figures: Figures) -> None:
    """Match and divergence against the rank."""
    left, right = figure.subplots(1, 2)
    labelled(left, "rank r", "tokens equal to the full cache's (%)")
    labelled(right, "rank r", "D_KL, mean over the steps (nats)")
    kept = [row for row in figures["rows"] if row["directions"] in (TEXT, WEIGHTS)]
    matches = [(f"{row['directions']}, free runs", row["rank"], 100 * row["match"]) for row in kept]
    if figures["of_the_paper"]:
        printed(left, "the paper", [(14, 7.5), (32, 15.0), (64, 100.0)], "P")
        printed(right, "the paper", [(14, 11.0), (32, 10.9), (64, 5e-4)], "P")
    lines(left, matches, bottom=0)
    divergences = [(f"{row['directions']}, free runs", row["rank"], row["kl_free"]) for row in kept]
    divergences += [
        (f"{row['directions']}, same text", row["rank"], row["kl_same_text"]) for row in kept
    ]
    lines(right, divergences, bottom=0)
    below(figure, (left, right), 3)


CLAIM = Claim(
    id="figure-6",
    where="Figure 6",
    title="Generation survives no truncation of keys and values",
    says=(
        "with the keys and values of SmolLM2-135M projected to rank r, 100 % of tokens match at r "
        "= 64, with a D_KL of 5e-4; 15 % (5 to 15) at r = 32, with 10.9; 5 to 10 % below 15, with "
        "more than 11."
    ),
    protocol=(
        "each head's keys and values in r of its directions, of the text (singular vectors of its "
        "own keys, positions included, and values) or of the weights (of the head's rows of W_k "
        f"and W_v); {TEXTS} texts of ours, {PROMPT} tokens each, {NEW_TOKENS} new ones, greedily; "
        "the prompt is read with all directions, and what is cached of it, and all that follows, "
        "is truncated. The paper gives neither its directions nor its texts. --quick: 2 texts, 2 "
        f"ranks, and not the run in which every operation is rounded, which has 2 texts of {SHORT} "
        f"tokens and {FEW} new ones."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
)

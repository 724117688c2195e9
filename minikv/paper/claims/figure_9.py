"""A window alone, by its length, and how much of a match is only the prompt's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...experiments import read_passages
from ...experiments.compare import compare
from ...experiments.plots import labelled, lines, printed
from ...experiments.score import pieces
from ...model import Model
from ..claim import Claim, Figures, Finding, Setting, Verdict
from .figure_4 import cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUDGETS = (8, 16, 32, 64, 128, 256)
NEW = 250
PROMPT = 192  # tokens
SHORT = 32
PAPER = {8: (0, 2), 256: (34, 88)}
"""Match in percent: the least and the highest of its models at a window; SmolLM2 has 34 at 256."""
PAPER_OURS = 34


def certain(prompt: int, budget: int, new_tokens: int) -> float:
    """The least match in percent that a window can have, by lengths alone.

    A token that is fed alone sees `budget` tokens before it and itself. As long as no more than
    that have gone by, nothing was dropped, and the next token is the full cache's.

    Examples
    --------
    >>> certain(32, 256, 250), certain(192, 256, 250), certain(192, 64, 250)
    (90.0, 26.0, 0.0)
    """
    return 100 * min(max(budget - prompt + 1, 0), new_tokens) / new_tokens


def shortest_prompt(match: float, budget: int, new_tokens: int) -> int:
    """How many tokens a prompt must have, if a window matches no more than `match` percent.

    Examples
    --------
    >>> shortest_prompt(34, 256, 250)
    172
    """
    prompt = 1
    while certain(prompt, budget, new_tokens) > match:
        prompt += 1
    return prompt


def run(setting: Setting) -> Finding:
    """Decode with windows behind prompts of two lengths."""
    model = setting.model(setting.names[0])
    new_tokens = setting.choose(NEW, 12)
    budgets = setting.choose(BUDGETS, (8, 256))
    long = prompts(model, PROMPT, setting.choose(2, 1))
    short = prompts(model, SHORT, 1)
    found = {
        "long": compare(model, long, budgets, new_tokens, ["window"], setting.progress),
        "short": compare(model, short, budgets, new_tokens, ["window"], setting.progress),
    }
    figures = {
        "long": _with_floor(cells(found["long"]), PROMPT, new_tokens),
        "short": _with_floor(cells(found["short"]), SHORT, new_tokens),
        "texts": len(long),
        "new_tokens": new_tokens,
        "least_prompt": shortest_prompt(PAPER_OURS, 256, NEW),
    }
    return told_of(figures)


def prompts(model: Model, length: int, count: int) -> dict[str, list[int]]:
    """The beginnings of some of our passages, in tokens."""
    assert model.tokenizer is not None
    texts = list(read_passages().items())[:count]
    return {name: pieces(model.tokenizer.encode(text), length)[0] for name, text in texts}


def _with_floor(
    entries: Sequence[Mapping[str, object]], prompt: int, new_tokens: int
) -> list[dict[str, object]]:
    return [
        {**entry, "certain": certain(prompt, int(str(entry["budget"])), new_tokens)}
        for entry in entries
    ]


def told(figures: Figures) -> tuple[Verdict, str]:
    """How much a window matches, and how much of that is certain."""
    long = {entry["budget"]: entry for entry in figures["long"]}
    short = {entry["budget"]: entry for entry in figures["short"]}
    most = max(long)
    low = long[min(long)]["match"] <= max(PAPER[8]) + 100 / figures["new_tokens"]
    between = PAPER[256][0] <= long[most]["match"] <= PAPER[256][1]
    verdict = Verdict.ONE_READING if low and between else Verdict.DIFFERS
    return verdict, (
        f"A window of {most} matches {long[most]['match']:.0f} % behind prompts of {PROMPT} "
        f"tokens and {short[most]['match']:.0f} % behind one of {SHORT}, of which lengths alone "
        f"make {long[most]['certain']:.0f} and {short[most]['certain']:.0f} % certain: until more "
        "tokens than the window have gone by nothing is dropped. So the match depends on the "
        f"length of the prompts, which the paper does not give: its {PAPER_OURS} % for SmolLM2 at "
        f"256 needs at least {figures['least_prompt']} tokens on average. A window of {min(long)} "
        f"matches {long[min(long)]['match']:.1f} % here."
    )


def told_of(figures: Figures) -> Finding:
    """The verdict and the table."""
    long = {entry["budget"]: entry for entry in figures["long"]}
    short = {entry["budget"]: entry for entry in figures["short"]}
    columns = (
        "window (tokens)",
        "paper: SmolLM2 (%)",
        "paper: all models (%)",
        f"ours: prompts of {PROMPT} (%)",
        "least to most",
        "certain by length (%)",
        f"ours: a prompt of {SHORT} (%)",
        "certain by length, short (%)",
    )
    rows = tuple(
        (
            budget,
            PAPER_OURS if budget == 256 else None,
            "{} to {}".format(*PAPER[budget]) if budget in PAPER else None,
            long[budget]["match"],
            f"{long[budget]['least']:.0f} to {long[budget]['most']:.0f}",
            long[budget]["certain"],
            short[budget]["match"],
            short[budget]["certain"],
        )
        for budget in long
    )
    return Finding(*told(figures), columns, rows, figures)


def plot(figure: Figure, figures: Figures) -> None:
    """Match by window, behind long and short prompts, with what is certain."""
    axes = labelled(
        figure.subplots(),
        "window (tokens)",
        "token match (%)",
        f"{figures['new_tokens']} new tokens with a window",
    )
    axes.set_xscale("log")
    points = []
    for name, length in (("long", PROMPT), ("short", SHORT)):
        for key, said in (("match", "ours"), ("certain", "certain by length")):
            label = f"{said}, prompt of {length}"
            points += [(label, entry["budget"], entry[key]) for entry in figures[name]]
    printed(axes, "the paper, SmolLM2", [(256, PAPER_OURS)], "^")
    printed(axes, "the paper, Qwen2.5-0.5B", [(256, PAPER[256][1])], "v")
    lines(axes, points, x_ticks=[entry["budget"] for entry in figures["long"]], bottom=0)


CLAIM = Claim(
    id="figure-9",
    where="Figure 9",
    title="A window alone loses tokens at every length up to 256",
    says=(
        f"of {NEW} tokens with a window of 8 to 256: 0 to 2 % match at 8; at 256 Qwen2.5-0.5B has "
        f"88 %, SmolLM2 {PAPER_OURS} %."
    ),
    protocol=(
        f"{NEW} new tokens, greedily, float32, behind the first {PROMPT} tokens of two passages "
        f"of Darwin's Origin of Species, and behind the first {SHORT} of one; the paper's prompts "
        "are not given. Beside each match what lengths alone make certain."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
)

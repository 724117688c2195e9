"""Token match and divergence of five policies by budget, right ones and ones with a mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...caches import Cache, Evicting, make_cache
from ...decoder import Weights
from ...experiments import policy_cache, read_passages
from ...experiments.compare import Maker, compare, mean_of
from ...experiments.faults import AtKeptRows
from ...experiments.plots import labelled, lines
from ...experiments.score import pieces
from ...experiments.together import Watched
from ...model import Model
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTEXT = 512
NEW = 50
BUDGETS = (32, 64, 128, 256, 384)
FAULTY_BUDGETS = (32, 128, 384)
PAPER = {
    "h2o": ((13, 5, 6, 6, 10), (6, 24, 24, 27, 28)),
    "streaming_llm": ((7, 8, 7, 8, 12), (22, 23, 24, 10, 8)),
    "snapkv": ((5, 6, 6, 19, 9), (10, 22, 24, 23, 22)),
    "tova": ((6, 8, 4, 8, 9), (6, 24, 24, 27, 28)),
    "window": ((5, 6, 6, 6, 6), (10, 10, 10, 7, 7)),
}
"""Token match in percent by budget, read off its cells: Qwen2.5-0.5B and Qwen2.5-1.5B."""
PAPER_KL = (7.2, 14.1)
PAPER_MATCH = (4, 28)
AS_THEY_WERE = {"streaming_llm": {"reposition": False}}  # keys that are not turned again

Row = Mapping[str, Any]
Point = tuple[str, float, float]


def by_name(name: str, weights: Weights, budget: int) -> Cache:
    """A policy as its paper has it."""
    return policy_cache(name, weights, budget)


def at_kept_rows(name: str, weights: Weights, budget: int) -> AtKeptRows:
    """The policy with the mistake: new tokens at the number of kept rows, keys as they were."""
    cache = make_cache(name, weights, budget=budget, **AS_THEY_WERE.get(name, {}))
    assert isinstance(cache, Evicting)
    return AtKeptRows(cache)


def measured(
    model: Model,
    prompts: Mapping[str, Sequence[int]],
    budgets: Sequence[int],
    make: Callable[[str, Weights, int], Watched],
    setting: Setting,
) -> Sequence[Row]:
    """Rows of `compare` for the five policies, as `make` makes them."""
    makers: dict[str, Maker] = {name: partial(make, name) for name in PAPER}
    tokens = setting.choose(NEW, 8)
    return compare(model, prompts, budgets, tokens, makers, setting.progress)


def cells(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a policy and budget: means over the texts, and the spread of the match."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["budget"]), []).append(row)
    return [
        {
            "policy": policy,
            "budget": budget,
            "match": 100 * fmean(row["match"] for row in group),
            "least": 100 * min(row["match"] for row in group),
            "most": 100 * max(row["match"] for row in group),
            "kl_same": fmean(row["kl_mean"] for row in group),
            "kl_free": fmean(row["kl_free"] for row in group),
            "kl_parted": mean_of(row["kl_parted"] for row in group),
        }
        for (policy, budget), group in groups.items()
    ]


def alike(rows: Sequence[Row], one: str, other: str) -> list[int]:
    """In how many pairs of text and budget two policies did the same, and of how many."""
    told: dict[str, dict[tuple[str, int], tuple[float, ...]]] = {one: {}, other: {}}
    for row in rows:
        if row["policy"] in told:
            case = (row["prompt"], row["budget"])
            told[row["policy"]][case] = (row["match"], row["kl_mean"], row["kl_free"])
    same = sum(told[one][case] == told[other][case] for case in told[one])
    return [same, len(told[one])]


def lossless(model: Model, ids: Sequence[int], tokens: int) -> dict[str, bool]:
    """Whether KV-Direct at the least budget has every bit of the full cache's logits."""
    policies = ("residual:every", "residual:embedding")
    rows = compare(model, {"text": ids}, [min(BUDGETS)], tokens, policies)
    return {row["policy"]: row["bits_equal"] and row["match"] == 1.0 for row in rows}


def run(setting: Setting) -> Finding:
    """Run the policies as they should be, and with the mistake."""
    name = setting.names[0]
    model = setting.model(name)
    assert model.tokenizer is not None
    texts = dict(list(read_passages().items())[: setting.choose(5, 1)])
    length = CONTEXT - NEW
    prompts = {key: pieces(model.tokenizer.encode(text), length)[0] for key, text in texts.items()}
    first = next(iter(prompts.values()))
    exact = lossless(setting.model(name, "exact"), first[: setting.choose(length, 64)], 4)
    budgets = setting.choose(BUDGETS, (32, 384))
    faulty_budgets = setting.choose(FAULTY_BUDGETS, (32, 384))
    right = measured(model, prompts, budgets, by_name, setting)
    faulty = measured(model, prompts, faulty_budgets, at_kept_rows, setting)
    figures = {
        "kv_direct_bits": exact,
        "right": cells(right),
        "faulty": cells(faulty),
        "h2o_is_tova": alike(right, "h2o", "tova"),
        "h2o_is_tova_faulty": alike(faulty, "h2o", "tova"),
        "texts": len(prompts),
        "new_tokens": setting.choose(NEW, 8),
    }
    return told_of(figures)


def span(entries: Sequence[Row], key: str, budgets: Sequence[int] = BUDGETS) -> tuple[float, float]:
    """The least and the highest of a figure over some budgets; the window is left out."""
    values = [
        entry[key]
        for entry in entries
        if entry[key] is not None and entry["budget"] in budgets and not _is(entry, "window")
    ]
    return min(values), max(values)


def printed(entry: Row) -> list[int]:
    """The paper's two cells, one a model, for a policy and budget."""
    place = BUDGETS.index(entry["budget"])
    return [cells_of_model[place] for cells_of_model in PAPER[entry["policy"]]]


def within_spread(entries: Sequence[Row]) -> tuple[int, int]:
    """How many of the paper's cells lie between our least and our best text, and of how many."""
    inside = [
        round(entry["least"]) <= value <= round(entry["most"])
        for entry in entries
        for value in printed(entry)
    ]
    return sum(inside), len(inside)


def within_divergence(entries: Sequence[Row], key: str) -> tuple[int, int]:
    """How many divergences lie in the paper's range, and of how many."""
    values = [entry[key] for entry in entries if entry[key] is not None]
    return sum(PAPER_KL[0] <= value <= PAPER_KL[1] for value in values), len(values)


def told(figures: Figures) -> tuple[Verdict, str]:
    """Which reading of the divergence gives the paper's figures, and whether the mistake does."""
    right = figures["right"]
    faulty = figures["faulty"]
    parted, policies = within_divergence(right, "kl_parted")
    same_text, _ = within_divergence(right, "kl_same")
    inside, cells_printed = within_spread(right)
    verdict = Verdict.DIFFERS
    if 2 * parted > policies and not same_text and 2 * inside > cells_printed:
        verdict = Verdict.ONE_READING
    return verdict, (
        f"{_of_divergence(right)} {_of_match(right, faulty)} {_of_mistake(faulty, figures)}"
    )


def told_of(figures: Figures) -> Finding:
    """The verdict and the table."""
    columns = (
        "policy",
        "budget",
        "paper: match % (0.5B)",
        "paper: match % (1.5B)",
        "ours: match %",
        "least to most",
        "KL, same text (nats)",
        "KL, two free runs, parted",
        "with the mistake: match %",
        "with the mistake: KL, same text",
    )
    rows = _rows(figures["right"], figures["faulty"])
    return Finding(*told(figures), columns, tuple(rows), figures)


def _of_divergence(right: Sequence[Row]) -> str:
    same = span(right, "kl_same")
    parted = span(right, "kl_parted")
    inside_same, _ = within_divergence(right, "kl_same")
    inside, count = within_divergence(right, "kl_parted")
    return (
        f"Divergence: on one and the same text policies other than the window are {same[0]:.2g} to "
        f"{same[1]:.2g} nats away, and between two free runs, after their texts have parted, "
        f"{parted[0]:.1f} to {parted[1]:.1f}. With the window's, {inside_same} of {count} lie in "
        f"the paper's {PAPER_KL[0]} to {PAPER_KL[1]} by the first reading and {inside} by the "
        "second, which compares what follows two different texts."
    )


def _of_match(right: Sequence[Row], faulty: Sequence[Row]) -> str:
    smaller = span(right, "match", [budget for budget in BUDGETS if budget < max(BUDGETS)])
    largest = span(right, "match", [max(BUDGETS)])
    inside, count = within_spread(right)
    by_mistake, checked = within_spread(faulty)
    theirs = [
        value
        for entry in right
        if entry["budget"] == max(BUDGETS) and not _is(entry, "window")
        for value in printed(entry)
    ]
    return (
        f"Match: up to B = {BUDGETS[-2]} right policies keep {smaller[0]:.0f} to {smaller[1]:.0f} "
        f"%, StreamingLLM among them; at {max(BUDGETS)} {largest[0]:.0f} to "
        f"{largest[1]:.0f}, where the paper has {min(theirs)} to {max(theirs)}. Of its {count} "
        f"cells {inside} lie between our least and our best text without any mistake, and with it "
        f"{by_mistake} of {checked}."
    )


def _of_mistake(faulty: Sequence[Row], figures: Figures) -> str:
    match = span(faulty, "match")
    parted, count = within_divergence(faulty, "kl_parted")
    same, pairs = figures["h2o_is_tova"]
    theirs = [value for entry in faulty for value in printed(entry)]
    above = sum(value > match[1] for value in theirs)
    return (
        f"New tokens at the number of kept rows give {match[0]:.0f} to {match[1]:.0f} % at every "
        f"budget, which {above} of {len(theirs)} printed cells are above, and {parted} of {count} "
        f"divergences in its range. H2O and TOVA did the same in {same} of {pairs} pairs of text "
        "and budget, where the paper's rows for 1.5B are equal, and those for 0.5B are not."
    )


def _is(entry: Row, policy: str, budget: int | None = None) -> bool:
    return entry["policy"] == policy and budget in (None, entry["budget"])


def _rows(right: Sequence[Row], faulty: Sequence[Row]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for entry in right:
        policy = entry["policy"]
        wrong = [each for each in faulty if _is(each, policy, entry["budget"])]
        match: float | None = None
        kl: float | None = None
        if wrong:
            match = wrong[0]["match"]
            kl = wrong[0]["kl_same"]
        rows.append(
            (
                policy,
                entry["budget"],
                *printed(entry),
                entry["match"],
                f"{entry['least']:.0f} to {entry['most']:.0f}",
                entry["kl_same"],
                entry["kl_parted"],
                match,
                kl,
            )
        )
    return rows


def plot(figure: Figure, figures: Figures) -> None:
    """Match by budget: the policies, with the mistake, and the paper's two models."""
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    titles = (
        "ours, policies as published",
        "ours, new tokens at the number of kept rows",
        "paper, Qwen2.5-0.5B",
        "paper, Qwen2.5-1.5B",
    )
    paper: list[list[Point]] = [
        [(name, budget, values[model][place]) for place, budget in enumerate(BUDGETS)]
        for model in (0, 1)
        for name, values in PAPER.items()
    ]
    policies = len(PAPER)
    series: tuple[list[Point], ...] = (
        _points(figures["right"]),
        _points(figures["faulty"]),
        [point for line in paper[:policies] for point in line],
        [point for line in paper[policies:] for point in line],
    )
    for number, (axes, title, points) in enumerate(zip(panels.flat, titles, series, strict=True)):
        x = "budget B (tokens)" if number > 1 else ""
        y = "token match (%)" if number % 2 == 0 else ""
        labelled(axes, x, y, title)
        axes.set_xscale("log")
        lines(axes, points, x_ticks=BUDGETS, bottom=0)
        if number != 1:
            axes.get_legend().remove()
    panels.flat[0].set_ylim(0, 100)


def _points(entries: Sequence[Row]) -> list[Point]:
    return [(entry["policy"], entry["budget"], entry["match"]) for entry in entries]


CLAIM = Claim(
    id="figure-4",
    where="Figure 4",
    title="Policies that evict lose most tokens at every budget, KV-Direct none",
    says=(
        "of 50 new tokens after a context of 512, 5 prompts, Qwen2.5-0.5B and 1.5B: KV-Direct "
        "matches 100 % at every budget (divergence < 1e-5), H2O, StreamingLLM, SnapKV, TOVA and a "
        f"window {PAPER_MATCH[0]} to {PAPER_MATCH[1]} % at B = 32 to 384, with a divergence of "
        f"{PAPER_KL[0]} to {PAPER_KL[1]}; H2O's and TOVA's rows for 1.5B are identical."
    ),
    protocol=(
        "SmolLM2-135M in place of Qwen2.5 (whoever has these: --model); "
        f"prompts of {CONTEXT - NEW} tokens, the beginnings of five passages of Darwin's Origin of "
        f"Species (the paper's are not given), {NEW} new ones, greedily, float32; KV-Direct under "
        "exact arithmetic. Match: equal tokens, position by position, after the first, which comes "
        "from the pass over the prompt. D_KL(full || policy) in two ways: on the full cache's text "
        "and between two runs, each on its own text, after these have parted. All of it again with "
        "a mistake: new tokens get the number of kept rows as their rotary position."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=told,
    plot=plot,
    exact=("kv_direct_bits",),
)

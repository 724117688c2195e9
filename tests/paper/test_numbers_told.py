"""Each number of a reason, worked out again from the kept figures, without what tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from minikv.paper.claims.figure_4 import PAPER as CELLS
from minikv.paper.run import kept

RESULTS = kept(Path(__file__).parents[2] / "docs" / "paper" / "results")
BUDGETS = (32, 64, 128, 256, 384)


def between(values: list[float], form: str) -> str:
    """From the least to the most, each in a form."""
    return f"{min(values):{form}} to {max(values):{form}}"


def equation_22(told: Any) -> Iterator[str]:
    text = [row["error"] for row in told["ratios"] if row["rows"] == "rows of a text"]
    vectors = [row for row in told["ratios"] if row["rows"] != "rows of a text"]
    yield f"errors are at most {max(text):.2g} of the bound"
    yield f"by a factor of {min(row['least_control'] for row in vectors):.4f} at least"


def equation_28(told: Any) -> Iterator[str]:
    above = [row["every"] > row["full"] for row in told["bytes"]]
    yield f"above the full cache's at {above.count(True)} of {len(above)} budgets"


def algorithm_1(told: Any) -> Iterator[str]:
    every, one = told["exact"]
    yield f"holds {every['bytes'] / told['full']:.2g} times the bytes"
    yield f"other K and V in {one['projected']['k_layers']} of {told['layers']} layers"
    yield f"{told['work']['replay'] / told['work']['projection']:.3g} times the multiply-adds"
    assert every["projected"]["numbers"] == 0


def section_3_2(told: Any) -> Iterator[str]:
    right, base, _, _, sixteen = (row["lengths"] for row in told["mistakes"])
    yield f"texts of {' and '.join(str(row['tokens']) for row in told['same'])} tokens"
    yield f"in all {told['layers']} layers, the {told['sliding']} sliding ones too"
    yield f"T1 holds in {told['blocks']} blocks"
    assert {row["recomputed"]["v_layers"] for row in base} == {0}
    (layers,) = {row["recomputed"]["k_layers"] for row in base}
    yield f"({layers} layers here, 29 of 34 in the paper)"
    pairs = [*zip(base, right, strict=True)][1:]
    yield " and ".join(
        f"{wrong['perplexity']:.3g} where the right one has {own['perplexity']:.3g} "
        f"({own['tokens']} tokens)"
        for wrong, own in pairs
    )
    within = [row["recomputed"]["numbers"] for row in sixteen if row["tokens"] <= 256]
    assert within == [0, 0]
    yield "it changes 0 numbers"


def conversation(told: Any) -> Iterator[str]:
    small = told["counted"]["10^6"]
    full, share, none = (row["seconds_per_token"] for row in told["turns"] if row["turn"] == 20)
    yield f"are K and V of {small['tokens']} tokens, {small['tokens'] / 20:g} a turn"
    yield f"a budget of {small['budget']} tokens"
    yield f"holds {small['none_kept']:.1f} MB, and {small['per_layer_none_kept']:.0f} with"
    yield f"took {none / full:.0f} times the full cache's time here at the end"
    yield f"with {told['budget']} kept {share / full:.0f} times"
    yield f"{small['other_full']:.0f} MB: a ratio of 4.7 needs {small['other_tokens']:,.0f} tokens"


def table_1(told: Any) -> Iterator[str]:
    less = [row["model"] for row in told["models"] if row["every_layer"] < row["kv"]]
    yield "6 of 6 lines come out digit for digit"
    yield f"in {len(less)} of the 6 models ({less[0]}) and more in {6 - len(less)}"


def table_2(told: Any) -> Iterator[str]:
    rows = told["rows"]
    same = [row["same"]["numbers"] == 0 for row in rows]
    yield f"the same bits in {sum(same)} of {len(rows)} rows"
    fixed = [row for row in rows if row["arithmetic"] in ("exact", "bfloat16", "float16")]
    other = [row for row in rows if row not in fixed]
    yield f"equal in {sum(row['anew']['numbers'] == 0 for row in fixed)} of {len(fixed)} rows"
    yield f"and in {sum(row['anew']['numbers'] == 0 for row in other)} of {len(other)} where"
    far = max((row["anew"]["k"] or 0.0, row["arithmetic"]) for row in other)
    yield f"K is up to {far[0]:.2g} away ({far[1]})"
    endless = {(row["model"], row["arithmetic"]): None for row in rows if row["same"]["k"] is None}
    yield f"leave the format ({'; '.join(f'{model} in {name}' for model, name in endless)})"


def shapes(told: Any) -> Iterator[str]:
    yield f"every one of {sum(row['exact'] for row in told['shapes'])} blocks"
    yield f"it holds in {sum(row['float32'] for row in told['shapes'])} of them"


def table_3(told: Any) -> Iterator[str]:
    models = told["models"]
    counts = {row[kind]["equal"] for row in models for kind in ("exact", "float32")}
    yield f"All {counts.pop()} tokens are equal"
    assert not counts
    yield f"logits are up to {max(row['float32']['farthest'] for row in models):.2g} apart"
    ratios = []
    for row in models:
        taken = row["times"]["seconds"]
        turns = zip(taken["none"], taken["full"], strict=True)
        ratios.append(f"{median(none / full for none, full in turns):.2g}")
    yield f"it takes {' and '.join(ratios)} times as long"


def hellaswag(told: Any) -> Iterator[str]:
    same = [name for name, count in told["bits"].items() if count == 10 and name != "full"]
    yield f"With {', '.join(same)} every ending's"
    yield f"at most {told['longest']} tokens here"
    yield f"{10 - told['bits']['window@8']} of 10 questions change"


def perplexity(told: Any) -> Iterator[str]:
    paper = {128: 38.2, 64: 65.3, 32: 135.4}
    away: dict[str, float] = {}
    for row in told["windows"]:
        factor = (row["perplexity"] / row["full"]) / (paper[row["window"]] / 26.46)
        away[row["reading"]] = max(away.get(row["reading"], 0.0), factor, 1 / factor)
    order = sorted(away, key=lambda name: away[name])
    yield "in this order: " + ", ".join(f"'{name}' {away[name]:.2f}" for name in order)
    near = [name for name in order if away[name] <= 1.1 * away[order[0]]]
    yield f"The first {len(near)} are within a tenth"
    yield f"every one of {told['bits']['rows']} rows"


def figure_4(told: Any) -> Iterator[str]:
    right, faulty = told["right"], told["faulty"]
    other = [row for row in right if row["policy"] != "window"]
    yield f"window are {between([row['kl_same'] for row in other], '.2g')} nats away"
    yield f"have parted, {between([row['kl_parted'] for row in other], '.1f')}."

    def inside(rows: list[Any], key: str) -> int:
        return sum(7.2 <= row[key] <= 14.1 for row in rows)

    yield f"{inside(right, 'kl_same')} of {len(right)} lie in the paper's 7.2 to 14.1"
    yield f"first reading and {inside(right, 'kl_parted')} by the second"
    small = [row["match"] for row in other if row["budget"] < 384]
    large = [row["match"] for row in other if row["budget"] == 384]
    printed = [cells[4] for name, rows in CELLS.items() for cells in rows if name != "window"]
    yield f"keep {between(small, '.0f')} %"
    yield f"at 384 {between(large, '.0f')}, where the paper has {between(printed, 'd')}"
    counted = []
    for rows in (right, faulty):
        within = [
            round(row["least"]) <= cells[BUDGETS.index(row["budget"])] <= round(row["most"])
            for row in rows
            for cells in CELLS[row["policy"]]
        ]
        counted.append((sum(within), len(within)))
    yield f"Of its {counted[0][1]} cells {counted[0][0]} lie between"
    yield f"and with it {counted[1][0]} of {counted[1][1]}."
    mistaken = [row["match"] for row in faulty if row["policy"] != "window"]
    theirs = [
        cells[BUDGETS.index(row["budget"])] for row in faulty for cells in CELLS[row["policy"]]
    ]
    above = sum(cell > max(mistaken) for cell in theirs)
    yield f"give {between(mistaken, '.0f')} % at every budget"
    yield f"which {above} of {len(theirs)} printed cells are above"
    yield f"and {inside(faulty, 'kl_parted')} of {len(faulty)} divergences in its range"
    yield f"the same in {told['h2o_is_tova'][0]} of {told['h2o_is_tova'][1]} pairs"


def figure_5(told: Any) -> Iterator[str]:
    ranks = told["models"]["smollm2-135m-instruct"]["ranks"]
    means = {
        name: fmean(rank for layer in found for rank in layer) for name, found in ranks.items()
    }
    formula = means.pop("the formula: sigma^2 of the score matrix")
    yield f"has a mean of {formula:.2f}, where it prints 21.2"
    nearest = sorted(means, key=lambda name: abs(means[name] - 21.2))[:3]
    yield "; ".join(f"{name}: {means[name]:.2f}" for name in nearest)


def figure_6(told: Any) -> Iterator[str]:
    cut = [row for row in told["rows"] if row["rank"] < 64]
    matches = [100 * row["match"] for row in cut]
    yield f"{between(matches, '.0f')} % of tokens match at ranks up to 48"
    yield f"{between([row['kl_same_text'] for row in cut], '.1f')} nats on the same text"
    yield f"{between([row['kl_free'] for row in cut], '.1f')} between free runs"
    weights = [row for row in cut if "weights" in row["directions"] and row["rank"] <= 32]
    yield f"free runs have {between([row['kl_free'] for row in weights], '.1f')} from rank 32"
    whole = [row for row in told["rows"] if row["rank"] == 64]
    kinds = ("of the text", "of the weights", "the same, rounded to bfloat16", "all operations")
    text, own, rounded, every = (
        next(row["kl_same_text"] for row in whole if kind in row["directions"].split("; ")[-1])
        for kind in kinds
    )
    yield f"D_KL is {max(text, own):.0e} in float32, {rounded:.0e} with K, V"
    yield f"and {every:.0e} with every operation"


def figure_7(told: Any) -> Iterator[str]:
    many = [row for row in told["rows"] if row["rows"] >= 50]
    most = [row for row in told["rows"] if row["rows"] == 500]
    ratios = [row["project_seconds"] / row["copy_seconds"] for row in many]
    yield f"{between(ratios, '.3g')} times as long as copying at 50 rows"
    assert min(ratios) > 1
    yield "wins for no shape"
    off = [row["ratio"] / row["predicted"] for row in many]
    yield f"a factor of {max(max(off), 1 / min(off)):.1f}"
    yield (
        f"moves {told['roofline']['traffic'] / 1e9:.0f} GB/s, a product does "
        f"{told['roofline']['rate'] / 1e9:.0f} GFLOP/s"
    )
    yield f"{between([2000 * row['one_by_one_seconds'] for row in most], '.3g')} µs each"
    rates = [row["rate_for_one_by_one"] / 1e12 for row in most]
    yield f"takes {between(rates, '.3g')} TFLOP/s"
    replayed = [row for row in told["rows"] if row["replay_seconds"]]
    replay = [row["replay_seconds"] / row["project_seconds"] for row in replayed]
    yield f"{between(replay, '.3g')} times the time to project"


def figure_7_tiers(told: Any) -> Iterator[str]:
    won = [row for row in told["tiers"] if row["project_seconds"] < row["seconds"]]
    lost = [row for row in told["tiers"] if row not in won]
    named = [f"{row['tier']} ({row['project_seconds'] / row['seconds']:.2g})" for row in won]
    yield f"K and V lie in: {', '.join(named)}."
    yield f"crossover at {told['crossover'] / 1e6:.0f} MB/s"
    first = max(row["bandwidth"] for row in won) / 1e6
    yield f"from {first:.0f} MB/s to {min(row['bandwidth'] for row in lost) / 1e6:.0f} MB/s"
    right = [(row in won) == (row["bandwidth"] < told["crossover"]) for row in told["tiers"]]
    yield f"for {sum(right)} of {len(right)}"
    yield f"below {told['crossover'] / 5e6:.0f} MB/s at this machine's"
    yield f"{told['roofline']['rate'] / 1e9:.0f} GFLOP/s"


def figure_8(told: Any) -> Iterator[str]:
    yield f"the donor's at {sum(told['bits_equal'])} of 30 layers"
    assert not any(told["all_rows"])
    yield f"above 0 at {sum(far > 0 for far in told['last_row'])} of them"
    named = [layer for layer, text in enumerate(told["answers"]) if "Canberra" in text]
    yield f"Canberra at layers {', '.join(map(str, named))} alone"


def figure_9(told: Any) -> Iterator[str]:
    long, short = ({row["budget"]: row for row in told[name]} for name in ("long", "short"))
    yield f"matches {long[256]['match']:.0f} % behind prompts of 192"
    yield f"and {short[256]['match']:.0f} % behind one of 32"
    yield f"make {long[256]['certain']:.0f} and {short[256]['certain']:.0f} % certain"
    yield f"at least {told['least_prompt']} tokens"
    yield f"A window of 8 matches {long[8]['match']:.1f} %"


NUMBERS: dict[str, Callable[[Any], Iterator[str]]] = {
    "equation-22": equation_22,
    "equation-28": equation_28,
    "algorithm-1": algorithm_1,
    "section-3.2": section_3_2,
    "experiment-20-turns": conversation,
    "table-1": table_1,
    "table-2": table_2,
    "table-2-shapes": shapes,
    "table-3": table_3,
    "table-4-hellaswag": hellaswag,
    "table-4-perplexity": perplexity,
    "figure-4": figure_4,
    "figure-5": figure_5,
    "figure-6": figure_6,
    "figure-7": figure_7,
    "figure-7-tiers": figure_7_tiers,
    "figure-8": figure_8,
    "figure-9": figure_9,
}


@pytest.mark.parametrize("id", NUMBERS)
def test_each_number_of_a_reason_is_what_the_figures_give(id):
    finding = RESULTS[id].finding
    for said in NUMBERS[id](finding.figures):
        assert said in finding.reason

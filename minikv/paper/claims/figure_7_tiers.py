"""Figure 7 where K and V lie behind something slower, and where "five times" would be true."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

from ...experiments import crossover
from ...experiments.crossover import Work, rate_needed
from ...experiments.machines import Machine
from ...experiments.plots import COLOURS, MARKERS, labelled
from ...experiments.tiers import MEMORY, tiers
from ...shapes import shape
from ..claim import Cell, Claim, Figures, Finding, Setting, Verdict
from .table_1 import PAPER as TABLE_1

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNT = 500
FIVE_TIMES = 0.2
M3_MAX = 400e9
"""Bytes a second of the paper's machine's memory, as its maker says; not measured by us."""


def run(setting: Setting) -> Finding:
    """Time reads from each tier against projecting, and say what the roofline expects."""
    name = setting.names[0]
    model = setting.model(name)
    work = Work.of(model.config)
    count = setting.choose(COUNT, 100)
    roofline = crossover.measured(clock=time.perf_counter)
    limit = roofline.crossover(work, count)
    found = [
        {
            **row,
            "predicted": row["bandwidth"] / limit,
            "wins": row["ratio"] < 1,
            "expected_to_win": row["bandwidth"] < limit,
        }
        for row in tiers(model, count, setting.choose(5, 3), progress=setting.progress)
    ]
    replay = len(model.layers) * crossover.replay_seconds(model, count, clock=time.perf_counter)
    for row in found:
        row["replay_ratio"] = replay / row["seconds"]
    figures = {
        "roofline": asdict(roofline),
        "crossover": limit,
        "rows": count,
        "tiers": found,
        "own": name,
        "work": {name: asdict(work), **{each: asdict(Work.of(shape(each))) for each in TABLE_1}},
        "m3_max": M3_MAX,
    }
    return Finding(*judged(figures), COLUMNS, tuple(map(_row, found)), figures)


COLUMNS = (
    "K and V lie in",
    "the paper: projecting / reading",
    "MB/s",
    "ms to read",
    "lowest to highest (ms)",
    "ms to project",
    "here: projecting / reading",
    "roofline",
    "one vector a token: replay / reading",
)


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    return (
        row["tier"],
        "0.17 to 0.3" if row["tier"] == MEMORY else None,
        row["bandwidth"] / 1e6,
        1e3 * row["seconds"],
        f"{1e3 * row['lowest']:.3g} to {1e3 * row['highest']:.3g}",
        1e3 * row["project_seconds"],
        row["ratio"],
        row["predicted"],
        row["replay_ratio"],
    )


def judged(figures: Figures) -> tuple[Verdict, str]:
    """Behind which tiers projecting wins, and what "five times" takes."""
    found = figures["tiers"]
    wins = [f"{row['tier']} ({row['ratio']:.2g})" for row in found if row["wins"]]
    agree = sum(row["wins"] == row["expected_to_win"] for row in found)
    shapes = {name: Work(**figures["work"][name]) for name in TABLE_1}
    own = Work(**figures["work"][figures["own"]])
    rates = [
        rate_needed(work, figures["m3_max"] / 2, FIVE_TIMES) / 1e12 for work in shapes.values()
    ]
    rate = figures["roofline"]["rate"]
    five = FIVE_TIMES * figures["crossover"]
    again = own.block / own.kv / own.hidden
    replayed = [
        f"{row['tier']} ({row['replay_ratio']:.2g})" for row in found if row["replay_ratio"] < 1
    ]
    verdict = Verdict.ONE_READING if wins else Verdict.DIFFERS
    return verdict, (
        "With residuals in memory, projecting wins where K and V lie in: "
        f"{', '.join(wins) or 'no tier'}. The roofline puts the crossover at "
        f"{figures['crossover'] / 1e6:.0f} MB/s (measured: {bracket(found)}), and says on which "
        f"side a tier lies for {agree} of {len(found)}. Five times takes a bandwidth below "
        f"{five / 1e6:.0f} MB/s at this machine's {rate / 1e9:.0f} GFLOP/s. With K and V of the "
        "paper's six shapes in the memory of its own machine "
        f"({figures['m3_max'] / 1e9:.0f} GB/s by its maker) and residuals at no cost, it takes "
        f"{min(rates):,.0f} to {max(rates):,.0f} TFLOP/s, as on the map. These residuals are one "
        f"at each layer: from one a token, replay takes {again:.0f} times the operations at the "
        f"shape measured, and is faster than reading for {', '.join(replayed) or 'no tier'}."
    )


def with_machines(finding: Finding, machines: Sequence[Machine]) -> Finding:
    """The same with other machines on the map, and what the roofline predicts for their memory."""
    if not machines:
        return finding
    own = Work(**finding.figures["work"][finding.figures["own"]])
    count = finding.figures["rows"]
    kept = []
    rows: list[tuple[Cell, ...]] = []
    for machine in machines:
        bandwidth = machine.traffic / 2
        predicted = bandwidth / machine.roofline.crossover(own, count)
        kept.append({**asdict(machine), "bandwidth": bandwidth, "predicted": predicted})
        spread = f"{machine.lowest[0] / 2e6:,.0f} to {machine.highest[0] / 2e6:,.0f} MB/s"
        where = f"memory of {machine.name} ({machine.rate / 1e9:.0f} GFLOP/s)"
        rows.append((where, None, bandwidth / 1e6, None, spread, None, None, predicted, None))
    told = "; ".join(
        f"{machine['name']} {machine['predicted']:.3g} ({machine['described']}, {machine['date']})"
        for machine in kept
    )
    reason = (
        f"{finding.reason} On other machines, by what was measured there and the roofline, "
        f"projecting takes so many times as long as reading from memory: {told}."
    )
    figures = {**finding.figures, "machines": kept}
    return replace(finding, reason=reason, rows=(*finding.rows, *rows), figures=figures)


def bracket(tiers: Sequence[Mapping[str, Any]]) -> str:
    """Between which of the measured bandwidths projecting begins to win.

    Examples
    --------
    >>> bracket([{"bandwidth": 4e7, "wins": True}, {"bandwidth": 9e7, "wins": False}])
    'from 40 MB/s to 90 MB/s'
    """
    won = [row["bandwidth"] for row in tiers if row["wins"]]
    lost = [row["bandwidth"] for row in tiers if not row["wins"]]
    told = []
    if won:
        told.append(f"from {max(won) / 1e6:.0f} MB/s")
    if lost:
        told.append(f"to {min(lost) / 1e6:.0f} MB/s")
    return " ".join(told)


def plot(figure: Figure, figures: Figures) -> None:
    """The map: the rate, at each bandwidth, at which projecting is as fast, or five times."""
    axes = labelled(
        figure.subplots(),
        "10⁶ numbers of K and V read in a second\n(bandwidth / bytes of a number)",
        "arithmetic (GFLOP/s)",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    numbers = [1e6, 1e12]
    names = [figures["own"], "gemma-3-4b"]
    for colour, name in zip(COLOURS, names, strict=False):
        work = Work(**figures["work"][name])
        for label, ratio, replay, style in LINES:
            needed = [rate_needed(work, each, ratio, replay) / 1e9 for each in numbers]
            text = f"{name}: {label}"
            axes.plot([each / 1e6 for each in numbers], needed, style, color=colour, label=text)
    roofline = figures["roofline"]
    for marker, row in zip(cycle((*MARKERS, "*")), figures["tiers"], strict=False):
        across = row["bandwidth"] / roofline["itemsize"] / 1e6
        text = f"measured here: {row['tier']}"
        axes.plot([across], [roofline["rate"] / 1e9], marker, color="black", ms=9, label=text)
    for number, machine in enumerate(figures.get("machines", ())):
        across = machine["bandwidth"] / machine["itemsize"] / 1e6
        marker = f"${chr(ord('A') + number % 26)}$"
        text = f"{machine['name']}: its memory"
        axes.plot(
            [across],
            [machine["rate"] / 1e9],
            marker=marker,
            color="black",
            ms=11,
            ls="",
            label=text,
        )
    text = "the paper's machine: its memory, bfloat16 (maker's figure)"
    axes.axvline(figures["m3_max"] / 2 / 1e6, color="grey", linestyle="-.", label=text)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=10)


LINES = (
    ("as fast", 1.0, False, "-"),
    ("five times as fast", FIVE_TIMES, False, "--"),
    ("replay from one vector a token as fast", 1.0, True, ":"),
)

CLAIM = Claim(
    id="figure-7-tiers",
    where="Figure 7, where five times is true",
    title="K and V behind something slower than memory",
    says=(
        "recomputing is up to five times faster than reading (0.17 to 0.3 of its time at N = "
        "500), from memory; it does not say at which bandwidth and rate."
    ),
    protocol=(
        f"{COUNT} rows of K and V of all layers, float32: copied in memory; read from a file and "
        "from a mapping of it, in the page cache and past it (the system is told to drop the "
        "file, and asked whether it did), and in scattered reads of 64, 8 and 1 rows; "
        "against projecting the same rows from residuals in memory. Wall clock, "
        "medians of 5; what lies below the file is this machine's disk, virtual or not. "
        "--quick: 100 rows, medians of 3."
    ),
    models=("smollm2-135m-instruct",),
    run=run,
    told=judged,
    plot=plot,
)

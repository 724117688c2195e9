"""What a run found, as Markdown on the terminal, and as files with plots in this folder."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import peers, scaling

FOLDER = Path(__file__).parent
FILES = {"peers": "RESULTS", "scaling": "SCALING"}
GREY = "#767676"
TITLES = {
    "peers": "# Speed and memory beside peers\n\nWhat each row measures: `benchmarks/README.md`.",
    "scaling": "# Time and memory against the length of the text\n\n"
    "An exponent of 1 is linear growth.",
}
PLOTS = {
    "peers": "Tokens a second, decoding and prefill, by contender",
    "scaling": "Time and memory against the length of the text, both axes logarithmic",
}


def render_peers(result: Mapping[str, Any]) -> str:
    """The machine, the contenders side by side, and ratios with targets."""
    table = [
        [
            "measure",
            "contender",
            "value",
            "against",
            "ratio",
            "lowest to highest",
            "target",
            "verdict",
        ]
    ]
    for r in result["ratios"]:
        target = "" if r["target"] is None else f"<= {r['target']:.2f}"
        spread = "" if r["low"] == r["high"] else f"{r['low']:.2f} to {r['high']:.2f}"
        table.append(
            [
                r["measure"],
                r["contender"],
                r["value"],
                r["against"],
                f"{r['ratio']:.2f}",
                spread,
                target,
                r["verdict"],
            ]
        )
    verdicts = [r["verdict"] for r in result["ratios"] if r["verdict"]]
    met = (
        f"{verdicts.count('met')} of {len(verdicts)} targets met, by the median of the rounds' "
        "ratios;\nbelow 1: faster or smaller."
    )
    return "\n\n".join(
        [
            head(result),
            "## Contenders",
            "Tokens a second unless a heading says otherwise.",
            columns(peers.speeds(result)),
            "## Ratios",
            met,
            columns(table),
        ]
    )


def render_scaling(result: Mapping[str, Any]) -> str:
    """The machine, the curves as numbers, and their exponents."""
    parts = [head(result)]
    for measure, by_name in result["curves"].items():
        what, unit = scaling.MEASURES[measure]
        lengths = sorted({n for points in by_name.values() for n, _ in points})
        table = [["contender", *(f"{n:,}" for n in lengths), "exponent", "verdict"]]
        for s in result["slopes"]:
            if s["measure"] == measure:
                values = dict(map(tuple, by_name[s["contender"]]))
                cells = (f"{values[n]:.3g}" if n in values else "" for n in lengths)
                table.append([s["contender"], *cells, f"{s['slope']:.2f}", s["verdict"]])
        parts += [f"## {what[0].upper()}{what[1:]}, {unit}", columns(table)]
    return "\n\n".join(parts)


RENDER = {"peers": render_peers, "scaling": render_scaling}


def head(result: Mapping[str, Any]) -> str:
    """The machine, and what was not there."""
    lines = [f"* {key}: {value}" for key, value in result["machine"].items()]
    return "\n".join(lines + [f"* not measured: {reason}" for reason in result["missing"]])


def columns(table: list[list[str]]) -> str:
    """A Markdown table."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [table[0], ["-" * width for width in widths], *table[1:]]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def write(name: str, result: Mapping[str, Any], text: str, folder: Path = FOLDER) -> None:
    """Keep a table and its plot."""
    stem = FILES[name]
    DRAW[name](result, folder / f"{stem}.png")
    parts = [TITLES[name], f"![{PLOTS[name]}]({stem}.png)", text]
    (folder / f"{stem}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def draw_peers(result: Mapping[str, Any], path: Path) -> None:
    """Tokens a second against context and against prompt length."""
    panels = figure(2, "tokens a second")
    for axes, kind in zip(panels, ("decode", "prefill"), strict=True):
        for name, took in result["seconds"].items():
            tasks = [task for task in took if task.startswith(kind)]
            lengths = [int(task.split()[1]) for task in tasks]
            rates = [[peers.rate(task, [s]) for s in took[task]] for task in tasks]
            middle = [statistics.median(r) for r in rates]
            spread = [
                [m - min(r) for m, r in zip(middle, rates, strict=True)],
                [max(r) - m for m, r in zip(middle, rates, strict=True)],
            ]
            axes.errorbar(lengths, middle, spread, capsize=5, **line(name))
        label = "context (tokens)" if kind == "decode" else "prompt (tokens)"
        finish(axes, "decoding" if kind == "decode" else "reading a prompt", label, lengths)
        axes.set_ylim(bottom=0)
    save(panels, path)


def draw_scaling(result: Mapping[str, Any], path: Path) -> None:
    """The three curves in logarithms, over lines of exponent 1 and 2."""
    panels = figure(3, "")
    for axes, (measure, by_name) in zip(panels, result["curves"].items(), strict=True):
        what, unit = scaling.MEASURES[measure]
        axes.set_yscale("log")
        for name, points in by_name.items():
            axes.plot(*zip(*points, strict=True), **line(name))
        lengths = sorted({n for points in by_name.values() for n, _ in points})
        values = [v for points in by_name.values() for _, v in points]
        ends = [points[-1][1] for points in by_name.values()]
        for power, style in ((1, ":"), (2, "-.")):  # they end below the lowest curve
            guide = [min(ends) / 2 * (n / lengths[-1]) ** power for n in lengths]
            axes.plot(lengths, guide, style, color=GREY, linewidth=2, label=f"exponent {power}")
        axes.set_ylim(min(values) / 8, max(values) * 2)
        axes.yaxis.set_major_locator(ticker().LogLocator(subs=(1, 2, 5), numticks=20))
        axes.yaxis.set_major_formatter(ticker().FormatStrFormatter("%g"))
        finish(axes, what, "length of the text (tokens)", lengths)
        axes.set_ylabel(f"{'time' if unit == 'ms' else 'memory'} ({unit})", fontsize=15)
    save(panels, path)


DRAW = {"peers": draw_peers, "scaling": draw_scaling}


def figure(count: int, y: str) -> Any:
    """Panels side by side."""
    from minikv.extras import require_extra

    module = require_extra("matplotlib.figure", "plots", "a plot")
    made = module.Figure(figsize=(6.2 * count + 2, 6), layout="constrained")
    panels = made.subplots(1, count)
    panels[0].set_ylabel(y, fontsize=15)
    return panels


def ticker() -> Any:
    from matplotlib import ticker

    return ticker


def line(name: str) -> dict[str, Any]:
    """Colour, marker and label of a contender, the same in every plot."""
    from minikv.experiments.plots import COLOURS, MARKERS

    number = peers.CONTENDERS.index(name)
    label = f"minikv {name}" if "/" in name else name
    return {
        "color": COLOURS[(number + number // 7) % 7],
        "marker": MARKERS[number % 7],
        "linestyle": ("-", "--")[number // 7],
        "label": label,
        "linewidth": 2.5,
        "markersize": 9,
        "zorder": 19 - number,
    }


def finish(axes: Any, title: str, label: str, lengths: Sequence[int]) -> None:
    """A logarithmic axis of lengths, and readable letters."""
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=45 if len(lengths) > 4 else 0)
    axes.minorticks_off()
    axes.set_xlabel(label, fontsize=15)
    axes.set_title(title, fontsize=15, loc="left")
    axes.tick_params(labelsize=13)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save(panels: Any, path: Path) -> None:
    """One legend for all panels, at the right."""
    panels[-1].legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=14, labelspacing=0.8
    )
    panels[0].figure.savefig(path, dpi=110)

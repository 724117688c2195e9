"""The figures of the experiments: readable on a slide, and without telling colours apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import require_extra

# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers. Yellow is left
# out, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX"
_FONT = 15
Rows = Sequence[Mapping[str, Any]]


def compare(rows: Rows, path: str | Path, title: str) -> None:
    """Token match against budget, from the rows of `experiments.compare.summary`."""
    points = ((row["policy"], row["budget"], 100 * row["match"]) for row in rows)
    axes = _axes("budget (tokens whose K and V are kept)", "tokens equal to full cache (%)", title)
    axes.set_xscale("log")
    _lines(axes, points, path, x_ticks={row["budget"] for row in rows}, bottom=0)


def memory(rows: Rows, path: str | Path, title: str) -> None:
    """Bytes held after each turn, from the rows of `experiments.memory`."""
    points = ((row["setting"], row["turn"], row["bytes"] / 1e6) for row in rows)
    axes = _axes("turn of the conversation", "held by the cache (MB = 10⁶ bytes)", title)
    _lines(axes, points, path, bottom=0)


def frontier(rows: Rows, path: str | Path, title: str) -> None:
    """Recompute time against bytes, one dot each, from the rows of `experiments.frontier`."""
    axes = _axes("bytes that the token keeps", "recompute time a token (µs)", title)
    axes.set_xscale("log")
    for row in rows:
        label, paper = row["checkpoints"], row["paper"]
        label = f"every {label} layers" if label.isdecimal() else label
        at = row["bytes"], 1e6 * row["recompute_seconds"]
        axes.plot(*at, "*" if paper else "o", markersize=20 if paper else 10,
                  color=COLOURS[1 if paper else 0])  # fmt: skip
        axes.annotate(f"{label}\n{paper}".strip(), at, xytext=(10, 6), fontsize=_FONT - 1,
                      textcoords="offset points")  # fmt: skip
    axes.margins(x=0.22, y=0.15)
    axes.figure.savefig(path, dpi=150)


def latency(rows: Rows, path: str | Path, title: str) -> None:
    """Time of both operations against length, from the rows of `experiments.latency`."""
    points = ((f"{name}, batch {row['batch']}", row["length"], 1e3 * row[f"{name}_seconds"])
              for row in rows for name in ("read", "recompute"))  # fmt: skip
    axes = _axes("tokens in each sequence", "time for one block (ms)", title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _lines(axes, points, path, x_ticks={row["length"] for row in rows})


def _axes(x: str, y: str, title: str) -> Any:
    figure_module = require_extra("matplotlib.figure", "plots", "a plot")
    axes = figure_module.Figure(figsize=(12, 6.5), layout="constrained").subplots()
    axes.set_xlabel(x, fontsize=_FONT + 2)
    axes.set_ylabel(y, fontsize=_FONT + 2)
    axes.set_title(title, fontsize=_FONT + 2, loc="left")
    axes.tick_params(labelsize=_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _lines(
    axes: Any, points: Iterable[tuple[str, float, float]], path: str | Path,
    x_ticks: Iterable[int] = (), bottom: float | None = None,
) -> None:  # fmt: skip
    """Draw a labelled line through the points of each label, and write the file."""
    series: dict[str, list[tuple[float, float]]] = {}
    for label, *point in points:
        series.setdefault(label, []).append((point[0], point[1]))
    for number, (label, line) in enumerate(series.items()):
        axes.plot(*zip(*sorted(line), strict=True), label=label, linewidth=2.5, markersize=8,
                  color=COLOURS[number % 7], marker=MARKERS[number % 7],
                  linestyle=("-", "--")[number // 7 % 2])  # fmt: skip
    if ticks := sorted(x_ticks):  # written out, where the axis would show powers of ten
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
    axes.set_ylim(bottom=bottom)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=_FONT)
    axes.figure.savefig(path, dpi=150)

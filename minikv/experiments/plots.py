"""The figures of the experiments: readable on a slide, and without telling colours apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    lines(axes, points, x_ticks={row["budget"] for row in rows}, bottom=0)
    _write(axes, path)


def memory(rows: Rows, path: str | Path, title: str) -> None:
    """Bytes held after each turn, from the rows of `experiments.memory`."""
    points = ((row["setting"], row["turn"], row["bytes"] / 1e6) for row in rows)
    axes = _axes("turn of the conversation", "held by the cache (MB = 10⁶ bytes)", title)
    ticks = {row["turn"] for row in rows if row["turn"] in (1, 5, 10, 15, 20)}
    lines(axes, points, x_ticks=ticks, bottom=0)
    _write(axes, path)


def frontier(rows: Rows, path: str | Path, title: str) -> None:
    """Recompute time against bytes, a point each, from the rows of `experiments.frontier`."""
    points = []
    for row in rows:
        name = row["checkpoints"]
        label = f"every {name} layers" if name.isdecimal() else name.replace("every", "every layer")
        note = f"\n(Gemma 3 4B in the paper:\n{row['paper']})" if row["paper"] else ""
        points.append((label + note, row["bytes"], 1e6 * row["recompute_seconds"]))
    axes = _axes("bytes that the token keeps", "recompute time a token (µs)", title)
    axes.set_xscale("log")
    lines(axes, points)
    _write(axes, path)


def latency(rows: Rows, path: str | Path, title: str) -> None:
    """How many times slower recomputing is, from the rows of `experiments.latency`."""
    points = [(f"batch {row['batch']}", row["length"], row["ratio"]) for row in rows]
    points += [("equal", row["length"], 1.0) for row in rows]
    axes = _axes("tokens in each sequence", "time to recompute / time to read", title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    lines(axes, points, x_ticks={row["length"] for row in rows})
    _write(axes, path)


def new_figure() -> Figure:
    """An empty figure, white on any page, so that it can be read on a dark one too."""
    figure_module = require_extra("matplotlib.figure", "plots", "a plot")
    return figure_module.Figure(figsize=(12, 6.5), layout="constrained", facecolor="white")


def labelled(axes: Axes, x: str, y: str, title: str = "") -> Axes:
    """The axes with names, units in them, in the size and style of every figure here."""
    axes.set_xlabel(x, fontsize=_FONT + 2)
    axes.set_ylabel(y, fontsize=_FONT + 2)
    axes.set_title(title, fontsize=_FONT + 2, loc="left")
    axes.tick_params(labelsize=_FONT)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def lines(
    axes: Axes,
    points: Iterable[tuple[str, float, float]],
    x_ticks: Iterable[int] = (),
    bottom: float | None = None,
) -> None:
    """Draw a labelled line through the points of each label."""
    series: dict[str, list[tuple[float, float]]] = {}
    for label, *point in points:
        series.setdefault(label, []).append((point[0], point[1]))
    for number, (label, line) in enumerate(series.items()):
        axes.plot(
            *zip(*sorted(line), strict=True),
            label=label,
            linewidth=2.5,
            markersize=11,
            color=COLOURS[(number + number // 7) % 7],
            marker=MARKERS[number % 7],
            linestyle=("-", "--")[number // 7 % 2],
            zorder=9 - number,
        )
    if ticks := sorted(x_ticks):  # written out, where the axis would show powers of ten
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
    axes.set_ylim(bottom=bottom)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=_FONT,
        labelspacing=0.7,
    )


def printed(axes: Axes, label: str, points: Sequence[tuple[float, float]], marker: str) -> None:
    """Draw another's figures, grey and dashed, so that they are not taken for ours.

    Before `lines`, which writes the legend.
    """
    axes.plot(
        *zip(*points, strict=True),
        label=label,
        linewidth=2.5,
        markersize=11,
        color="#707070",
        marker=marker,
        linestyle="--",
        zorder=10,
    )


def below(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """One legend below all axes, of every label once, in place of those beside them."""
    shown: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
        legend = each.get_legend()
        if legend is not None:
            legend.remove()
    figure.legend(
        [*shown.values()],
        [*shown],
        loc="outside lower center",
        ncols=columns,
        fontsize=12,
        frameon=False,
    )


def _axes(x: str, y: str, title: str) -> Axes:
    return labelled(new_figure().subplots(), x, y, title)


def _write(axes: Any, path: str | Path) -> None:
    axes.figure.savefig(path, dpi=150)

"""The page of the roofline: its plot and its tables, from what ``benchmarks/GOALS.md`` measured.

    python -m benchmarks.goals --threads 1 --write    # measure, and the same for two threads
    python docs/roofline_page.py --write              # then write docs/roofline.md anew

The plot goes to ``docs/_static/roofline.png`` (extra ``plots``), the words between the marks of the
page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from speed_page import Row, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
GOALS = ROOT / "benchmarks" / "GOALS.md"
PAGE = ROOT / "docs" / "roofline.md"
PLOT = ROOT / "docs" / "_static" / "roofline.png"
MARKS = re.compile(r"(?ms)(^<!-- goals: [^\n]* --write -->\n).*?(^<!-- end)")
FURTHEST = 6  # rows in the table of what remains
CLOCKS = {"cpu": "processor time", "wall": "wall time"}
UNITS = {"G": 1e9, "Gflop/s": 1e9, "MB": 1e6, "GB/s": 1e9, "ms": 1e-3, "": 1.0}
ROOFS = {"float32": "float32 products", "float64": "float64 products"}


def number(cell: str) -> float:
    """A number with its unit.

    Examples
    --------
    >>> number("1.5 GB/s"), number("250 ms")
    (1500000000.0, 0.25)
    """
    value, _, unit = cell.partition(" ")
    return float(value) * UNITS[unit]


@dataclass(frozen=True)
class Section:
    """One run: of one thread, or of two."""

    title: str
    facts: Mapping[str, str]
    rows: Sequence[Row]
    rates: Mapping[str, str]

    def roof(self, name: str) -> float:
        """Flops a second of the products, or bytes a second of ``"reading"``."""
        (found,) = [rate for what, rate in self.rates.items() if what.startswith(name)]
        return number(found)

    @property
    def points(self) -> Iterator[tuple[str, str, float, float]]:
        """Contender, task, flops a byte and flops a second."""
        for row in self.rows:
            if row["flops"]:
                contender, task = re.fullmatch(r"`(.*) (\w+ \d+)`", row["work"]).groups()
                flops = number(row["flops"])
                yield contender, task, flops / number(row["bytes"]), flops / number(row["time"])


def sections(goals: str) -> list[Section]:
    """The runs that a page of goals holds."""
    found = []
    for part in re.split(r"(?m)^## ", goals)[1:]:
        rows, rates = tables(part + "\n")
        facts = dict(re.findall(r"(?m)^\* ([^:\n]+): (.*)$", part))
        named = {rate["rate"]: rate["measured"] for rate in rates}
        found.append(Section(part.splitlines()[0], facts, rows, named))
    return found


def told(section: Section) -> list[str]:
    """A run as the page has it."""
    facts = section.facts
    disturbed = facts["turns disturbed by other programs"]
    lines = [f"### {section.title}", ""]
    if "quick" in facts:
        lines += ["**A quick run: few rounds and short texts, no result.**", ""]
    lines += [
        f"{facts['processor']}; {facts['BLAS']}; {facts['date']}; {CLOCKS[facts['clock']]}; "
        f"rounds: {facts['rounds']}; turns disturbed by other programs: {disturbed}.",
        "",
        "| work | in units of | floor | now | goal | |",
        "|---|---|---|---|---|---|",
    ]
    for row in section.rows:
        cells = [row[head] for head in ("work", "in units of", "floor", "now", "goal", "verdict")]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def remaining(section: Section) -> list[str]:
    """What is furthest above its floor, in one run."""
    ratios = {
        row["work"]: float(row["now"]) / float(row["floor"])
        for row in section.rows
        if row["floor"] and row["now"] != "not measured"
    }
    furthest = sorted(ratios.items(), key=lambda found: -found[1])[:FURTHEST]
    lines = [f"Furthest above their floors, {section.title.lower()}:", ""]
    lines += ["| work | times its floor |", "|---|---|"]
    return [*lines, *(f"| {work} | {ratio:.2f} |" for work, ratio in furthest), ""]


def words(found: Sequence[Section]) -> str:
    """The plot in words."""
    said = ["Plot, both axes logarithmic: flops a second against flops for a byte that is read."]
    for section in found:
        said.append(
            f"{section.title}: memory at {section.roof('reading') / 1e9:.0f} GB/s, "
            f"float32 products at {section.roof('float32 products') / 1e9:.0f} Gflop/s, "
            f"float64 products at {section.roof('float64 products') / 1e9:.0f} Gflop/s."
        )
        for group, kind in (("Decoding", "decode"), ("Prompts", "prefill")):
            points = [(x, y) for _, task, x, y in section.points if kind in task]
            if points:
                intensity, rate = (sorted(values) for values in zip(*points, strict=True))
                said.append(
                    f"{group}: {intensity[0]:.3g} to {intensity[-1]:.3g} flops a byte, "
                    f"{rate[0] / 1e9:.3g} to {rate[-1] / 1e9:.3g} Gflop/s."
                )
    return " ".join(said)


def block(goals: str) -> str:
    """What stands between the marks of the page."""
    found = sections(goals)
    if not found:
        raise SystemExit(f"{GOALS.name} has no run: python -m benchmarks.goals --write")
    parts = [f"![{words(found)}](_static/{PLOT.name})", ""]
    for section in found:
        parts += told(section)
    parts += ["### What remains", ""]
    for section in found:
        parts += remaining(section)
    return "\n".join(parts) + "\n"


def written(page: str, goals: str) -> str:
    """The page with the block made anew."""
    return MARKS.sub(lambda marks: f"{marks[1]}\n{block(goals)}{marks[2]}", page)


def draw(found: Sequence[Section], path: Path) -> None:
    """The roofs and the points, a panel for each run."""
    from matplotlib.ticker import FormatStrFormatter

    from minikv.experiments.plots import COLOURS, MARKERS
    from minikv.extras import require_extra

    module = require_extra("matplotlib.figure", "plots", "a plot")
    size = (7.5 * len(found) + 3, 7)
    figure = module.Figure(figsize=size, layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(name for section in found for name, *_ in section.points))
    for axes, section in zip(panels, found, strict=True):
        draw_roofs(axes, section)
        for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
            points = [(x, y / 1e9) for who, _, x, y in section.points if who == name]
            x, y = zip(*points, strict=True) if points else ((), ())
            style = {"color": colour, "marker": marker, "label": name}
            axes.plot(x, y, linestyle="", markersize=12, **style)
        axes.set_title(section.title, fontsize=17, loc="left")
        axes.set_xlabel("flops for a byte that is read", fontsize=17)
        axes.tick_params(labelsize=15)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FormatStrFormatter("%g"))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Gflop/s", fontsize=17)
    highest = max(section.roof("float32 products") for section in found)
    panels[0].set_ylim(1, 1.6 * highest / 1e9)
    panels[-1].legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=15, labelspacing=0.8
    )
    figure.savefig(path, dpi=90)


def draw_roofs(axes: Axes, section: Section) -> None:
    """Memory's roof, that of each kind of product, where they meet, and what lies where."""
    reading = section.roof("reading")
    low = 0.2
    high = 3000.0
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    for height, (kind, name) in zip((3.0, 4.5), ROOFS.items(), strict=True):
        roof = section.roof(name)
        ridge = roof / reading
        style = "-" if kind == "float32" else "--"
        line = ([low, ridge, high], [reading * low / 1e9, roof / 1e9, roof / 1e9])
        axes.plot(*line, style, color="#444444", linewidth=2)
        label = f"{kind} products, {roof / 1e9:.0f} Gflop/s"
        axes.text(high, roof / 1e9 * 1.06, label, fontsize=14, ha="right")
        axes.plot([ridge, ridge], [1, roof / 1e9], ":", color="#767676", linewidth=1.5)
        axes.text(ridge * 1.1, height, f"ridge of {kind}: {ridge:.1f}", fontsize=14)
    slope = f"memory,\n{reading / 1e9:.0f} GB/s"
    axes.text(1.2 * low, 1.4 * reading / 1e9, slope, fontsize=14)  # left of the slope
    places: dict[str, float] = {}
    for _, task, x, _ in section.points:
        places[words_of(task)] = max(x, places.get(words_of(task), x))
    for words, x in places.items():
        axes.text(x, 1.15, words, fontsize=14, ha="center", color="#444444")


def words_of(task: str) -> str:
    """A group of points, as the plot names it.

    Examples
    --------
    >>> words_of("decode 16"), words_of("prefill 2048")
    ('decoding', 'prompt\\nof 2,048')
    """
    kind, size = task.split()
    if kind == "decode":
        return "decoding"
    return f"prompt\nof {int(size):,}"


def main() -> None:
    goals = GOALS.read_text(encoding="utf-8")
    if sys.argv[1:] != ["--write"]:
        print(block(goals))
        return
    draw(sections(goals), PLOT)
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), goals), encoding="utf-8")


if __name__ == "__main__":
    main()

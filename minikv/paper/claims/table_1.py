"""Table 1: what a token keeps in six models, as keys and values or as one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...experiments.accounting import shape_bytes
from ...experiments.plots import COLOURS, labelled
from ..claim import Claim, Figures, Finding, Setting, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KB = 1024


class Printed(NamedTuple):
    """A line of the paper's table, digit for digit: KB of K and V, KB of a residual, the ratio."""

    kv: str
    residual: str
    ratio: str


PAPER = {
    "smollm2-135m": Printed("22.5", "1.1", "20.0"),
    "qwen2.5-0.5b": Printed("12.0", "1.8", "6.9"),
    "qwen3-0.6b": Printed("112", "2.0", "56.0"),
    "deepseek-r1-distill-qwen-1.5b": Printed("28", "3.0", "9.3"),
    "qwen2.5-1.5b": Printed("28", "3.0", "9.3"),
    "gemma-3-4b": Printed("136", "5.0", "27.2"),
}


def printed_as(value: float, text: str) -> bool:
    """Whether a value, rounded to as many decimals as a printed one has, is that one.

    Examples
    --------
    >>> printed_as(1.125, "1.1"), printed_as(1.76, "1.7")
    (True, False)
    """
    decimals = len(text.partition(".")[2])
    return f"{value:.{decimals}f}" == text


def run(setting: Setting) -> Finding:
    """Count from the configurations."""
    models = []
    rows = []
    for name, printed in PAPER.items():
        kv = shape_bytes(name, "K/V")
        one = shape_bytes(name, "embedding")
        every = shape_bytes(name, "every")
        model = {"model": name, "kv": kv, "residual": one, "every_layer": every}
        as_printed = digit_for_digit(model)
        paper = f"{printed.kv} -> {printed.residual} KB, {printed.ratio}"
        rows.append((name, paper, kv, one, kv / one, as_printed, every, kv / every))
        models.append(model)
    columns = (
        "model",
        "paper",
        "K/V (bytes)",
        "one residual (bytes)",
        "ratio",
        "as printed",
        "one at every layer (bytes)",
        "K/V / that",
    )
    figures = {"models": models}
    return Finding(*told(figures), columns, tuple(rows), figures)


def digit_for_digit(model: Figures) -> bool:
    """Whether a model's figures come out as the paper prints them."""
    printed = PAPER[model["model"]]
    return (
        printed_as(model["kv"] / KB, printed.kv)
        and printed_as(model["residual"] / KB, printed.residual)
        and printed_as(model["kv"] / model["residual"], printed.ratio)
    )


def told(figures: Figures) -> tuple[Verdict, str]:
    """How many lines come out, and which models algorithm 1 saves memory for."""
    models = figures["models"]
    right = sum(map(digit_for_digit, models))
    saving = [model["model"] for model in models if model["every_layer"] < model["kv"]]
    more = sum(model["every_layer"] > model["kv"] for model in models)
    verdict = Verdict.ONE_READING if right == len(models) else Verdict.DIFFERS
    return verdict, (
        f"{right} of {len(models)} lines come out digit for digit, with KB = {KB} bytes, if one "
        "residual a token stands for all layers. Then K and V of a layer follow by replaying the "
        "blocks below it (T5), and not by the one projection a layer that the paper counts. With a "
        "residual at every layer, as algorithm 1 stores them, a projection is enough (T1), and a "
        f"token keeps less than its K and V in {len(saving)} of the {len(models)} models "
        f"({', '.join(saving)}) and more in {more}."
    )


def plot(figure: Figure, figures: Figures) -> None:
    """Three bars a model: K and V, one residual, a residual at every layer."""
    models = figures["models"]
    axes = labelled(figure.subplots(), "KB = 1,024 bytes a token (bfloat16)", "")
    kinds = {
        "kv": "K and V",
        "residual": "one residual (paper's table)",
        "every_layer": "one at every layer (its algorithm 1)",
    }
    for number, (kind, label) in enumerate(kinds.items()):
        places = [place + 0.27 * (number - 1) for place in range(len(models))]
        widths = [model[kind] / KB for model in models]
        bars = axes.barh(places, widths, 0.25, label=label, color=COLOURS[number])
        axes.bar_label(bars, fmt="%.4g", padding=4, fontsize=12)
    axes.set_yticks(range(len(models)), [model["model"] for model in models])
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=14, loc="upper right")


CLAIM = Claim(
    id="table-1",
    where="Table 1",
    title="One residual a token is 6.9 to 56 times smaller than its keys and values",
    says=(
        "K and V of a token against one residual vector, in bfloat16, for six models: 22.5 to 1.1 "
        "KB (SmolLM2-135M), 12.0 to 1.8 (Qwen2.5-0.5B), 112 to 2.0 (Qwen3-0.6B), 28 to 3.0 "
        "(DeepSeek-R1-Distill-1.5B and Qwen2.5-1.5B), 136 to 5.0 (Gemma 3-4B)."
    ),
    protocol=(
        "2 L G d b and D b bytes from the models' published configurations (minikv/data/shapes), "
        "b = 2; beside them L D b, a residual at every layer."
    ),
    run=run,
    told=told,
    plot=plot,
    exact=("models",),
)

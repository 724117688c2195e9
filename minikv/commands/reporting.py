"""What ``compare``, ``memory``, ``frontier`` and ``latency`` share: options, model, table, plot."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError, TokenizerError
from ..extras import require_extra
from ..model import Model, load
from ..progress import status
from .options import add_arithmetic, add_json, add_model
from .output import check_folder, check_output, deliver, print_table, print_text

Row = Mapping[str, object]


def add_reporting(parser: ArgumentParser, arithmetic: str) -> None:
    """Add the options of an experiment; `arithmetic` is its default."""
    add_model(parser)
    add_arithmetic(parser, arithmetic)
    add_json(parser, "rows and figures")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw it: .png, .svg or .pdf (extra `plots`)"
    )


def load_model(args: Namespace, needs_text: bool = False) -> Model:
    """Load the model; refuse first what would fail at the end of a long run."""
    check_plot(args)
    with status(f"preparing {args.model} ({args.arithmetic})"):
        model = load(args.model, args.arithmetic)
    if needs_text and model.tokenizer is None:
        raise TokenizerError(f"{args.model} has no tokenizer.json, which text needs")
    return model


def check_plot(args: Namespace) -> None:
    """Refuse a plot that cannot be drawn or written, and figures that cannot."""
    check_output(args)
    if not args.plot:
        return
    require_extra("matplotlib", "plots", "--plot")
    if Path(args.plot).suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--plot {args.plot}: expected a name that ends in .png, .svg or .pdf")
    check_folder("--plot", args.plot)


def measured_by(args: Namespace) -> str:
    """What an experiment ran on, in one line."""
    from ..experiments import machine

    return f"{args.model}, arithmetic {args.arithmetic}; {machine()}"


def measured_on(args: Namespace) -> dict[str, str]:
    """The same for a program to read."""
    from ..experiments import machine

    return {"model": args.model, "arithmetic": args.arithmetic, "machine": machine()}


def publish(args: Namespace, figures: Row, table: Sequence[Row], note: str, keys: int = 1) -> None:
    """Print figures as JSON, or else a table, of `keys` columns that name a row, and a note."""
    if deliver(args, figures):
        return
    print_table([*table[0]], (row.values() for row in table), keys, verdicts=["bits_equal"])
    print_text(f"\n{note}")


def draw(
    args: Namespace,
    plot: Callable[[Sequence[Row], str, str], None],
    rows: Sequence[Row],
    title: str,
) -> None:
    """Draw rows, where ``--plot`` is given."""
    if args.plot:
        plot(rows, args.plot, title)
        print(f"wrote {args.plot}", file=sys.stderr)

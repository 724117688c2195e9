"""``minikv frontier``: bytes a token against recompute time."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..progress import show
from .options import count
from .reporting import add_reporting, draw, load_model, measured_by, measured_on, publish

SUMMARY = "bytes a token against recompute time"
DESCRIPTION = """\
For each set of checkpoints: the bytes that a token without K and V keeps, and the measured time to
get them back."""
EXAMPLES = """\
  minikv frontier --plot frontier.png
  minikv frontier --evicted 512"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_reporting(parser, "float32")
    parser.add_argument(
        "--evicted", type=count, default=256, metavar="N", help="default: %(default)s tokens"
    )
    parser.add_argument(
        "--repeats", type=count, default=5, metavar="N", help="default: %(default)s"
    )


def run(args: Namespace) -> None:
    """Measure, and print."""
    from ..experiments import plots
    from ..experiments.frontier import frontier

    rows = frontier(load_model(args), args.evicted, args.repeats, progress=show)
    note = (
        f"{args.evicted} tokens without K and V; medians of {args.repeats} steps. bytes: of such a "
        "token (gemma_bytes: at Gemma 3-4B's shape, bfloat16). recompute_seconds: the step, less "
        "the full cache's, for each of these tokens. A number k: every k-th layer.\n"
        f"{measured_by(args)}"
    )
    publish(args, {**measured_on(args), "rows": rows}, rows, note)
    draw(args, plots.frontier, rows, f"A token without K and V, {args.model}")

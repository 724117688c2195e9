"""``minikv latency``: reading K/V against recomputing them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..progress import show
from .options import count, counts
from .reporting import add_reporting, draw, load_model, measured_by, measured_on, publish

SUMMARY = "reading K/V against recomputing them"
DESCRIPTION = """\
Time attention of one new token a sequence over cached keys and values, and over keys and values
made from residuals on the spot, with the arithmetic intensity of both. Pairs of batch and length
beyond 8,192 tokens in all are left out."""
EXAMPLES = """\
  minikv latency --plot latency.png
  minikv latency --batches 1,8 --lengths 256"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_reporting(parser, "float32")
    parser.add_argument(
        "--batches", type=counts, default="1,4,16", metavar="N,N", help="default: %(default)s"
    )
    parser.add_argument(
        "--lengths", type=counts, default="128,512,2048", metavar="N,N", help="default: %(default)s"
    )
    parser.add_argument(
        "--repeats", type=count, default=5, metavar="N", help="default: %(default)s"
    )


def run(args: Namespace) -> None:
    """Measure, and print."""
    from ..experiments import plots
    from ..experiments.latency import latency, verdict

    model = load_model(args)
    rows = latency(model, args.batches, args.lengths, args.repeats, progress=show)
    said = verdict(model.config, rows)
    note = (
        f"One block, attention included; medians of {args.repeats}. intensity: flop/byte.\n{said}."
        f"\n{measured_by(args)}"
    )
    publish(args, {**measured_on(args), "verdict": said, "rows": rows}, rows, note)
    draw(args, plots.latency, rows, f"One block, {args.model}")

"""``minikv serve-rank``: take part in a run of several processes."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import Any

from ..parallel.sockets import join, parse_address
from ..parallel.start import KEY_VARIABLE, ending
from . import generate
from .options import add_json
from .output import peak_memory, print_aside, print_json, readable

SUMMARY = "be one of several processes that run a model together"
DESCRIPTION = """\
Join the run whose first process listens at HOST:PORT, as one of its ranks: load
this rank's part of the model, and compute with the others until the answer is
there. The first process is  minikv generate ... --ranks N --listen HOST:PORT;
it may start later. It says which model, options and text; the model's folder
must be on this machine too, with the same weights."""
EXAMPLES = """\
  minikv serve-rank 10.0.0.1:4711
  minikv serve-rank 10.0.0.1:4711 --key lecture --model ~/models/smollm2"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("address", metavar="HOST:PORT", help="where the first process listens")
    parser.add_argument("--key", default="", metavar="WORD", help="the first process's --key")
    parser.add_argument(
        "--model", metavar="NAME", help="the model's name or folder here, if it is another one"
    )
    add_json(parser, to_file=False)


def run(args: Namespace) -> None:
    """Join, and do as the first process says."""
    parse_address(args.address)
    key = args.key or os.environ.get(KEY_VARIABLE, "")
    with ending(join(args.address, key)) as comm:
        told: Any = comm.from_first(None)
        if args.model:
            told["model"] = args.model
        generate.continued(Namespace(**told), comm)
    figures = {
        "rank": comm.rank,
        "ranks": comm.size,
        "calls": comm.calls,
        "wire_bytes": comm.wire,
        "peak_memory_bytes": peak_memory(),
    }
    if args.json:
        print_json(figures)
    else:
        print_aside(
            f"[rank {comm.rank} of {comm.size}; sent and received {readable(comm.wire)} in "
            f"{comm.calls} calls]"
        )

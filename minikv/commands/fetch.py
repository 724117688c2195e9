"""``minikv fetch``: get a model, or see what can be had."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from ..weights.fetch import DEFAULT, KNOWN, fetch, home, is_fetched
from .options import add_json
from .output import check_output, deliver, print_table, print_text

SUMMARY = "fetch a model, or list what can be fetched"
DESCRIPTION = """\
Fetch a model, once: checked by SHA-256, and there whole or not at all.
Models go to $MINIKV_HOME, else to weights/ of a checkout, else to ~/.cache/minikv."""
EXAMPLES = f"""\
  minikv fetch
  minikv fetch {DEFAULT}
  minikv fetch --list"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "name",
        nargs="?",
        default=DEFAULT,
        metavar="NAME",
        help="a name that --list shows (default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="list the names")
    add_json(parser)


def run(args: Namespace) -> None:
    """Fetch, or list."""
    check_output(args)
    if args.list:
        _list(args)
        return
    fetch_missing(args.name)
    folder = fetch(args.name)  # there already, or an unknown name
    if not deliver(args, {"name": args.name, "folder": str(folder)}):
        print(f"{args.name} is in {folder}")


def fetch_missing(name: str) -> None:
    """Fetch a known model that is not there yet; leave anything else as it is."""
    if name not in KNOWN or is_fetched(name):
        return
    known = KNOWN[name]
    print(f"fetching {name} ({known.megabytes} MB on disk, {known.licence})", file=sys.stderr)
    fetch(name)


def _list(args: Namespace) -> None:
    rows = [
        {
            "name": known.name,
            "fetched": is_fetched(known.name),
            "megabytes": known.megabytes,
            "gated": known.gated,
            "licence": known.licence,
            "repository": known.repository,
            "note": known.note,
        }
        for known in KNOWN.values()
    ]
    if deliver(args, {"home": str(home()), "models": rows}):
        return
    print_text(f"models go to {home()}\n")
    yes = {True: "yes", False: ""}
    print_table(
        ["fetched", "name", "about MB", "gated", "licence", "repository", "note"],
        (
            [
                yes[is_fetched(known.name)],
                known.name,
                known.megabytes,
                yes[known.gated],
                known.licence,
                known.repository,
                known.note,
            ]
            for known in KNOWN.values()
        ),
        keys=2,
    )
    print_text("\ngated: accept the licence on the model's page of the hub, and run  hf auth login")

"""``minikv fetch`` and ``minikv inspect``: get a model, and see what it holds."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from typing import Any

from . import print_json, print_table, status


def add_parser(subparsers: Any) -> None:
    """Add both commands."""
    from ..weights.fetch import DEFAULT

    fetch = subparsers.add_parser(
        "fetch",
        help="fetch a model, or list what can be fetched",
        description="Fetch a model, once: checked by SHA-256, and there whole or not at all.\n"
        "Models go to $MINIKV_HOME, else to weights/ of a checkout, else to ~/.cache/minikv.",
        epilog=f"examples:\n  minikv fetch\n  minikv fetch {DEFAULT}\n  minikv fetch --list",
    )
    fetch.add_argument("--list", action="store_true", help="list the names")
    inspect = subparsers.add_parser(
        "inspect",
        help="a model's configuration, tensors, and bytes per token",
        description="Check a model's files and say what is in them: configuration, tensors, and\n"
        "what a token costs as keys and values, as residuals, or as its id.",
        epilog=f"examples:\n  minikv inspect {DEFAULT}\n  minikv inspect ./my-model --tensors",
    )
    inspect.add_argument("--tensors", action="store_true", help="list every tensor by itself")
    for parser, run, what in (
        (fetch, _fetch, "a name that --list shows"),
        (inspect, _inspect, "a fetched model, or a folder"),
    ):
        parser.add_argument(
            "name", nargs="?", default=DEFAULT, metavar="NAME", help=f"{what} (default: {DEFAULT})"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)


def fetch_missing(name: str) -> None:
    """Fetch a known model that is not there yet; leave anything else as it is."""
    from ..weights.fetch import KNOWN, fetch, is_fetched

    if name in KNOWN and not is_fetched(name):
        known = KNOWN[name]
        print(f"fetching {name} ({known.megabytes} MB on disk, {known.licence})", file=sys.stderr)
        fetch(name)


def _fetch(args: argparse.Namespace) -> None:
    from ..weights.fetch import KNOWN, fetch, home, is_fetched

    if not args.list:
        fetch_missing(args.name)
        folder = fetch(args.name)  # there already, or an unknown name
        if args.json:
            print_json({"name": args.name, "folder": str(folder)})
        else:
            print(f"{args.name} is in {folder}")
        return
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
    if args.json:
        print_json({"home": str(home()), "models": rows})
        return
    print(f"models go to {home()}\n")
    columns = ("name", "megabytes", "gated", "licence", "repository", "note")
    told = [{**row, "gated": "yes" if row["gated"] else ""} for row in rows]
    print_table(
        ["fetched", "name", "about MB", *columns[2:]],
        [["yes" if row["fetched"] else "", *(row[key] for key in columns)] for row in told],
    )
    print("\ngated: accept the licence on the model's page of the hub, and run  hf auth login")


def _inspect(args: argparse.Namespace) -> None:
    import numpy as np

    from ..arithmetic import get_arithmetic
    from ..config import ModelConfig
    from ..experiments.memory import per_token
    from ..weights import load_tensors, resolve

    folder = resolve(args.name)
    config = ModelConfig.from_file(folder / "config.json")
    with status(f"reading {folder}"):
        loaded = load_tensors(folder, config)
        tensors: list[dict[str, Any]] = [
            {
                "name": name,
                "shape": list(tensor.shape),
                "parameters": tensor.size,
                "largest": float(max(tensor.max(), -tensor.min())),
            }
            for name, tensor in loaded.items()
        ]
    per_weight = {
        name: np.dtype(get_arithmetic(name).wide).itemsize
        for name in ("float32", "float64", "exact")
    }
    if args.json:
        print_json(
            {
                "folder": str(folder),
                "config": asdict(config),
                "family": asdict(config.family),
                "parameters": config.num_parameters,
                "bytes_per_token": per_token(config),
                "bytes_per_weight": per_weight,
                "tensors": tensors,
            }
        )
        return
    print(f"{args.name}: {config.num_parameters:,} parameters, all finite, in {folder}\n")
    told = asdict(config) | asdict(config.family)
    print_table(["configuration", ""], ([key, str(value)] for key, value in told.items()))
    rows: dict[str, list[Any]] = {}
    for tensor in tensors:
        name = tensor["name"]
        if not args.tensors:
            name = re.sub(r"\.\d+\.", f".{{0..{config.num_hidden_layers - 1}}}.", name)
        row = rows.setdefault(name, [name, "x".join(map(str, tensor["shape"])), 0, 0, 0.0])
        row[2:] = row[2] + 1, row[3] + tensor["parameters"], max(row[4], tensor["largest"])
    print()
    print_table(["tensor", "shape", "count", "parameters", "largest"], rows.values())
    print()
    print_bytes(config)
    print()
    print_table(["arithmetic", "bytes a weight"], per_weight.items())


def print_bytes(config: Any) -> None:
    """Print what a token costs as keys and values, as residuals, or as its id."""
    from ..experiments.memory import PER_TOKEN, per_token

    figures = ([PER_TOKEN[key], *row.values()] for key, row in per_token(config).items())
    print_table(["bytes per token", "float32", "bfloat16"], figures)

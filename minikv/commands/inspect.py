"""``minikv inspect``: what a model holds, and what a token costs."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..arithmetic import get_arithmetic
from ..config import ModelConfig
from ..progress import status
from ..shapes import PER_TOKEN, per_token
from ..weights import load_tensors, resolve
from ..weights.fetch import DEFAULT
from .options import add_json
from .output import check_output, deliver, print_table, print_text

SUMMARY = "a model's configuration, tensors, and bytes per token"
DESCRIPTION = """\
Check a model's files and say what is in them: configuration, tensors, and
what a token costs as keys and values, as residuals, or as its id."""
EXAMPLES = f"""\
  minikv inspect {DEFAULT}
  minikv inspect ./my-model --tensors"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "name",
        nargs="?",
        default=DEFAULT,
        metavar="NAME",
        help="a fetched model, or a folder (default: %(default)s)",
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor by itself")
    add_json(parser)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model's files."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    largest: float  # magnitude


def run(args: Namespace) -> None:
    """Read all of it, and tell."""
    check_output(args)
    folder = resolve(args.name)
    config = ModelConfig.from_file(folder / "config.json")
    with status(f"reading {folder}"):
        tensors = [_measured(name, tensor) for name, tensor in load_tensors(folder, config).items()]
    kinds = ("float32", "float64", "exact")
    per_weight = {kind: np.dtype(get_arithmetic(kind).wide).itemsize for kind in kinds}
    figures = {
        "folder": str(folder),
        "config": asdict(config),
        "family": asdict(config.family),
        "parameters": config.num_parameters,
        "bytes_per_token": per_token(config),
        "bytes_per_weight": per_weight,
        "tensors": [asdict(tensor) for tensor in tensors],
    }
    if deliver(args, figures):
        return
    print_text(f"{args.name}: {config.num_parameters:,} parameters, all finite, in {folder}\n")
    told = asdict(config) | asdict(config.family)
    print_table(["configuration", ""], ([key, str(value)] for key, value in told.items()))
    print()
    groups = _grouped(tensors, config.num_hidden_layers, args.tensors)
    print_table(["tensor", "shape", "count", "parameters", "largest"], _totals(groups))
    print()
    print_bytes(config)
    print()
    print_table(["arithmetic", "bytes a weight"], per_weight.items())


def print_bytes(config: ModelConfig) -> None:
    """Print what a token costs as keys and values, as residuals, or as its id."""
    figures = ([PER_TOKEN[key], *row.values()] for key, row in per_token(config).items())
    print_table(["bytes per token", "float32", "bfloat16"], figures)


def _measured(name: str, tensor: np.ndarray) -> Tensor:
    largest = float(max(tensor.max(), -tensor.min()))
    return Tensor(name, tensor.shape, tensor.size, largest)


def _grouped(tensors: Iterable[Tensor], layers: int, each: bool) -> dict[str, list[Tensor]]:
    """Tensors by name; those of all layers under one, unless each is wanted."""
    groups: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        name = tensor.name
        if not each:
            name = re.sub(r"\.\d+\.", f".{{0..{layers - 1}}}.", name)
        groups.setdefault(name, []).append(tensor)
    return groups


def _totals(groups: Mapping[str, list[Tensor]]) -> Iterable[list[object]]:
    for name, tensors in groups.items():
        yield [
            name,
            "x".join(map(str, tensors[0].shape)),
            len(tensors),
            sum(tensor.parameters for tensor in tensors),
            max(tensor.largest for tensor in tensors),
        ]

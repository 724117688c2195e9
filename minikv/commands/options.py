"""Options that several commands have, and kinds of values that argparse does not know."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError

from ..weights.fetch import DEFAULT


def add_model(parser: ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="NAME",
        help="a name that `minikv fetch --list` shows, a folder, or a GGUF file "
        "(default: %(default)s)",
    )


def add_arithmetic(parser: ArgumentParser, default: str) -> None:
    """Add ``--arithmetic``."""
    parser.add_argument(
        "--arithmetic",
        default=default,
        metavar="A",
        help="float32 (fast), float64, exact (the same bits on every machine), or bfloat16 and "
        "float16 (every operation rounded; slow); default: %(default)s",
    )


def add_backend(parser: ArgumentParser) -> None:
    """Add ``--backend``."""
    parser.add_argument(
        "--backend",
        default="numpy",
        metavar="B",
        help="numpy (default), numba (compiled; all but float64), torch, cupy (GPU), jax or "
        "array_api_strict",
    )


def add_json(parser: ArgumentParser, what: str = "figures", to_file: bool = True) -> None:
    """Add ``--json``, and ``--output``, which writes the same to a file."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")
    if to_file:
        parser.add_argument(
            "--output", metavar="FILE", help="write the same JSON to FILE; - is standard output"
        )


def add_template(parser: ArgumentParser) -> None:
    """Add ``--template``."""
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        type=variable,
        metavar="NAME=VALUE",
        help="a variable of the chat template, as enable_thinking=false; may be given again",
    )


def variable(text: str) -> tuple[str, object]:
    """A name and its value: JSON, or else the text itself."""
    name, _, told = text.partition("=")
    if not name.isidentifier() or not told or name in ("self", "messages"):
        raise ArgumentTypeError(f"{text!r:.80}, expected NAME=VALUE, as enable_thinking=false")
    try:
        return name, json.loads(told)
    except ValueError:
        return name, told


def names(text: str) -> list[str]:
    """Words with commas between them."""
    return [part.strip() for part in text.split(",")]


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}, expected a whole number from 1 up")
    return int(text)


def amount(text: str) -> int:
    """A whole number from 0 up."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r}, expected a whole number from 0 up")
    return int(text)


def counts(text: str) -> list[int]:
    """Whole numbers from 1 up, with commas between them."""
    return [count(part) for part in names(text)]

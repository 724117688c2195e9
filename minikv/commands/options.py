"""Options that several commands have, and kinds of values that argparse does not know."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

from ..weights.fetch import DEFAULT


def add_model(parser: ArgumentParser) -> None:
    """Add ``--model``."""
    parser.add_argument(
        "--model",
        default=DEFAULT,
        metavar="NAME",
        help="a name that `minikv fetch --list` shows, or a folder (default: %(default)s)",
    )


def add_arithmetic(parser: ArgumentParser, default: str) -> None:
    """Add ``--arithmetic``."""
    parser.add_argument(
        "--arithmetic",
        default=default,
        metavar="A",
        help="float32 (fast), float64, or exact (the same bits on every machine); "
        "default: %(default)s",
    )


def add_backend(parser: ArgumentParser) -> None:
    """Add ``--backend``."""
    parser.add_argument(
        "--backend",
        default="numpy",
        metavar="B",
        help="numpy (default), numba (compiled; exact and float32), torch, cupy (GPU), jax or "
        "array_api_strict",
    )


def add_json(parser: ArgumentParser, what: str = "figures") -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def names(text: str) -> list[str]:
    """Words with commas between them."""
    return [part.strip() for part in text.split(",")]


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}, expected a whole number from 1 up")
    return int(text)


def counts(text: str) -> list[int]:
    """Whole numbers from 1 up, with commas between them."""
    return [count(part) for part in names(text)]

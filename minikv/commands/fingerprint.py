"""``minikv fingerprint``: one number for a model's answer, to compare between machines."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import print_json, print_table, status


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    from ..weights.fetch import DEFAULT

    parser = subparsers.add_parser(
        "fingerprint",
        help="one number for a model's answer, the same on every machine",
        description="Print the SHA-256 of the logits of all positions of a text, the SHA-256 of "
        "the weights,\nand what computed them. With the exact arithmetic, the same weights and "
        "token ids\ngive the same fingerprint on every machine; with float32 they do not.",
        epilog="examples:\n  minikv fingerprint\n"
        '  minikv fingerprint --prompt "Once upon a time" --json\n'
        "  minikv fingerprint --arithmetic float32 --chunk 7\n"
        "  minikv fingerprint --everywhere --python other/venv/bin/python",
    )
    add = parser.add_argument
    add(
        "--model",
        default=DEFAULT,
        metavar="NAME",
        help="a fetched model or a folder (default: %(default)s)",
    )
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompt", metavar="TEXT", help="default: a text of our own")
    text.add_argument("--ids", nargs="+", type=int, metavar="ID", help="token ids in its place")
    add("--arithmetic", default="exact", metavar="A", help="exact (default), float32 or float64")
    add(
        "--backend",
        default="numpy",
        metavar="B",
        help="numpy (default), numba, torch, cupy (GPU), jax or array_api_strict",
    )
    add("--chunk", type=int, metavar="N", help="feed N tokens a call (default: all in one)")
    add("--json", action="store_true", help="print JSON")
    add(
        "--everywhere",
        action="store_true",
        help="under every BLAS kernel, thread count, SIMD level, chunking, cache and array library "
        "that this machine offers, float32 beside exact; 1 as exit code if exact is not one value "
        "(needs a checkout: proofs/portability.py)",
    )
    add(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="with --everywhere: another interpreter, with other libraries",
    )
    parser.set_defaults(run=_fingerprint)


def _fingerprint(args: argparse.Namespace) -> int | None:
    from .. import __version__
    from ..fingerprint import PROMPT, environment, fingerprint
    from ..model import load
    from ..tokenizer import Tokenizer
    from ..weights import load_tensors, resolve, weights_hash

    ids, prompt = args.ids, args.prompt
    if ids is None and not (args.everywhere and prompt is None):
        tokenizer = Tokenizer.from_folder(resolve(args.model))
        ids = tokenizer.encode(PROMPT if prompt is None else prompt)
    if args.everywhere:
        return _everywhere(args, ids)
    if args.python:
        raise InputError("--python is for --everywhere; run the other interpreter's own minikv")
    with status(f"loading {args.model}"):
        model = load(args.model, args.arithmetic, args.backend)
        assert model.folder is not None
        weights = weights_hash(load_tensors(model.folder, model.config))
    with status(f"reading {len(ids)} tokens"):
        digest = fingerprint(model, ids, args.chunk)
    figures = {
        "fingerprint": digest,
        "weights": weights,
        "model": args.model,
        "arithmetic": args.arithmetic,
        "tokens": len(ids),
        "chunk": args.chunk,
    }
    where = {"minikv": __version__, "backend": args.backend, **environment()}
    if args.json:
        print_json({**figures, "ids": list(ids), "environment": where})
        return None
    figures["chunk"] = figures["chunk"] or "all in one"
    where["simd"] = " ".join(where["simd"])
    print_table(
        ["the same everywhere" if args.arithmetic == "exact" else "of this machine", ""],
        ([key, str(value)] for key, value in figures.items()),
    )
    print()
    print_table(["computed by", ""], ([key, str(value)] for key, value in where.items()))
    return None


def _everywhere(args: argparse.Namespace, ids: list[int] | None) -> int:
    import minikv

    from ..weights.fetch import DEFAULT

    script = Path(minikv.__file__).parents[1] / "proofs" / "portability.py"
    if not script.is_file():
        raise InputError(
            f"--everywhere runs {script}, which an installed minikv lacks: "
            "run it in a checkout of the repository"
        )
    if args.chunk or args.arithmetic != "exact":
        raise InputError(
            "--everywhere tries every chunk, float32 and exact: leave out --chunk and --arithmetic"
        )
    command = [sys.executable, str(script)]
    if args.model != DEFAULT:  # which the script replaces by random weights where it is missing
        command += ["--model", args.model]
    command += ["--ids", *map(str, ids)] if ids is not None else []
    for path in args.python:
        command += ["--python", path]
    return subprocess.run([*command, "--json"] if args.json else command).returncode

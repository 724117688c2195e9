"""``minikv fingerprint``: one number for a model's answer, to compare between machines."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import __version__
from ..config import ModelConfig
from ..decoder import check_ids
from ..environment import environment
from ..errors import InputError
from ..fingerprint import PROMPT, fingerprint
from ..model import load
from ..progress import status
from ..tokenizer import Tokenizer
from ..weights import load_tensors, resolve, weights_hash
from .extracted import run_extracted
from .options import add_arithmetic, add_backend, add_json, add_model, count
from .output import alone, check_output, deliver, print_table

SUMMARY = "one number for a model's answer, the same on every machine"
DESCRIPTION = """\
Print the SHA-256 of the logits of all positions of a text, the SHA-256 of the weights,
and what computed them. With the exact arithmetic, the same weights and token ids
give the same fingerprint on every machine that keeps to IEEE 754; with float32 they
do not. A checkout of the repository can try everything that one machine can vary, and
other instruction sets by emulation: python proofs/portability.py --help"""
EXAMPLES = """\
  minikv fingerprint
  minikv fingerprint --prompt "Once upon a time" --json
  minikv fingerprint --arithmetic float32 --chunk 7
  minikv fingerprint --extracted --ids 504 13487 6942 314 511"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--prompt", default=PROMPT, metavar="TEXT", help="default: a text of our own")
    text.add_argument("--ids", nargs="+", type=int, metavar="ID", help="token ids in its place")
    add_arithmetic(parser, "exact")
    add_backend(parser)
    parser.add_argument(
        "--chunk", type=count, metavar="N", help="feed N tokens a call (default: all in one)"
    )
    parser.add_argument(
        "--extracted",
        action="store_true",
        help="run the decoder that was proved in Rocq beside the Python, and compare all bits "
        "(in a checkout, with coq and ocaml)",
    )
    add_json(parser)


def run(args: Namespace) -> int:
    """Read the text, and print both numbers; 1 if the extracted decoder has other bits."""
    if args.extracted:
        _expect_alone(args)
    check_output(args)
    ids = args.ids
    if ids is not None:
        check_ids(ids, ModelConfig.from_folder(resolve(args.model)))  # before the model is loaded
    else:
        ids = Tokenizer.from_folder(resolve(args.model)).encode(args.prompt)
    if args.extracted:
        report, differ = run_extracted("--model", args.model, "--tokens", *ids)
        print(report, end="")
        return int(differ > 0)
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
    if deliver(args, {**figures, "ids": list(ids), "environment": where}):
        return 0
    figures["chunk"] = args.chunk or "all in one"
    where["simd"] = " ".join(where["simd"])
    holds = "of this machine"
    if args.arithmetic == "exact":
        holds = "the same everywhere"
    print_table(["", holds], ([key, str(value)] for key, value in figures.items()))
    print()
    print_table(["", "computed by"], ([key, str(value)] for key, value in where.items()))
    return 0


def _expect_alone(args: Namespace) -> None:
    """Refuse what does not go with ``--extracted``."""
    contradictions = {
        f"--arithmetic {args.arithmetic}": args.arithmetic != "exact",
        f"--backend {args.backend}": args.backend != "numpy",
        f"--chunk {args.chunk}": args.chunk is not None,
        "--json": alone(args),
        f"--output {args.output}": args.output is not None,
    }
    for option, given in contradictions.items():
        if given:
            raise InputError(
                f"--extracted does not go with {option}: it compares the exact arithmetic on "
                "NumPy, in one pass and in chunks, and prints a report"
            )

"""``minikv score``: perplexity of a text, accuracy on multiple-choice endings."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..progress import show, status
from .options import add_arithmetic, add_json, add_model, count, names
from .output import check_output, deliver, print_table

if TYPE_CHECKING:
    from ..model import Model

SUMMARY = "perplexity of a text, or accuracy on endings, by cache"
DESCRIPTION = """\
Score a file with each cache. A text: perplexity of its pieces, each a text of its own, fed token by
token. A file that ends in .jsonl: questions in HellaSwag's format, the ending of the highest
log-likelihood by character (by token and in sum beside it) against the label. Without a file: ten
questions of our own in that format, to see it work."""
EXAMPLES = """\
  minikv score
  minikv score hellaswag.jsonl --limit 500 --policies full,window@64
  minikv score wiki.test.raw --length 512 --policies full,window@128"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a text, or questions as JSONL")
    add_model(parser)
    add_arithmetic(parser, "float32")
    add_json(parser)
    parser.add_argument(
        "--policies",
        type=names,
        default=["full"],
        metavar="P,P",
        help="as in full,window@64,residual:every@32 (default: full)",
    )
    parser.add_argument(
        "--length", type=count, metavar="N", help="tokens of a piece of text (default: 512)"
    )
    parser.add_argument(
        "--limit", type=count, metavar="N", help="the first N questions, or pieces (default: all)"
    )


def run(args: Namespace) -> None:
    """Score a text, or questions."""
    from ..experiments import policy_cache
    from ..experiments.score import SAMPLE
    from ..model import load

    path = Path(args.file or str(SAMPLE))
    asks = path.suffix == ".jsonl"
    if asks and args.length:
        raise InputError("--length cuts a text, and a .jsonl file holds questions: leave it out")
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a text or questions as .jsonl")
    check_output(args)
    with status(f"preparing {args.model} ({args.arithmetic})"):
        model = load(args.model, args.arithmetic)
    for name in args.policies:
        policy_cache(name, model.weights)  # refuses a wrong one before the work
    rows = _answered(args, path, model) if asks else _read(args, path, model)
    scored = {"model": args.model, "arithmetic": args.arithmetic, "file": path.name}
    if deliver(args, {**scored, "rows": rows}):
        return
    print_table([*rows[0]], (row.values() for row in rows))


def _answered(args: Namespace, path: Path, model: Model) -> Sequence[dict[str, object]]:
    from ..experiments import policy_cache
    from ..experiments.score import accuracy, read_questions, score

    questions = read_questions(path)[: args.limit]
    rows: list[dict[str, object]] = []
    for name in args.policies:
        make = partial(policy_cache, name, model.weights)
        scored = []
        for number, question in enumerate(questions, start=1):
            scored.append(score(model, question, make))
            show(f"score: {name}", number, len(questions))
        rows.append(
            {
                "policy": name,
                "questions": len(scored),
                "by characters": accuracy(scored),
                "by tokens": accuracy(scored, "tokens"),
                "in sum": accuracy(scored, ""),
                "longest": max(each.longest for each in scored),
            }
        )
    return rows


def _read(args: Namespace, path: Path, model: Model) -> Sequence[dict[str, object]]:
    from ..experiments import policy_cache
    from ..experiments.score import perplexity, pieces, read_text, step_by_step

    length = args.length or 512
    texts = pieces(read_text(model, path), length, str(path))[: args.limit]
    rows: list[dict[str, object]] = []
    for name in args.policies:
        scored = []
        for ids in texts:
            scored += step_by_step(model, [(ids, policy_cache(name, model.weights))], show)
        rows.append(
            {
                "policy": name,
                "pieces": len(texts),
                "tokens": sum(map(len, scored)),
                "perplexity": perplexity(scored),
            }
        )
    return rows

"""``minikv demo``: the claim, on one screen."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError
from ..model import Model, load
from ..progress import show, status
from .options import add_json, add_model, count
from .output import check_output, deliver, print_table, print_text, readable

if TYPE_CHECKING:
    from ..experiments.demo import Decoded

SUMMARY = "the claim on one screen, in under a minute"
DESCRIPTION = """\
One text, continued with the full cache, with no cache, with KV-Direct and with a window: in exact
arithmetic and in float32. Printed is whether every bit of all logits is the full cache's, the first
token that is another one, and the bytes that the cache held."""
EXAMPLES = """\
  minikv demo
  minikv demo "Once upon a time" --new-tokens 24"""

LINE = 78  # characters, where no terminal says how many
HEADER = ("cache", "same bits", "first other token", "bytes held")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="default: a sentence of ours")
    add_model(parser)
    parser.add_argument("--new-tokens", type=count, default=16, metavar="N", help="default: 16")
    add_json(parser)


def run(args: Namespace) -> None:
    """Decode, and print."""
    from ..experiments import machine
    from ..experiments.demo import CACHES, PROMPT, demonstrate

    check_output(args)
    text = args.prompt or PROMPT
    found: dict[str, dict[str, Decoded]] = {}
    for arithmetic in ("exact", "float32"):
        with status(f"preparing {args.model} ({arithmetic})"):
            model = load(args.model, arithmetic)
        ids = _ids(model, args.model, text)
        found[arithmetic] = demonstrate(model, ids, args.new_tokens, show)
    assert model.tokenizer is not None
    written = model.tokenizer.decode(found["exact"]["full"].tokens)
    tables = {arithmetic: _table(decoded) for arithmetic, decoded in found.items()}
    said = {"model": args.model, "machine": machine(), "prompt": text, "text": written}
    if deliver(args, {**said, "new_tokens": args.new_tokens, **tables}):
        return
    print(f"{args.model}, {len(ids)} tokens and {args.new_tokens} new ones, greedy:\n")
    print_text("\n".join(f"  {line}" for line in f"{text}|{written}\n".split("\n")), LINE)
    for arithmetic, rows in tables.items():
        print(f"--- {arithmetic}")
        print_table(HEADER, map(_cells, rows), verdicts=["same bits"])
        print()
    for name, what in CACHES.items():
        print(f"{name:<12} {what}")
    print_text(f"\n{conclusion(tables)}\n{machine()}", LINE)


def _ids(model: Model, name: str, text: str) -> list[int]:
    if model.tokenizer is None:
        raise TokenizerError(f"{name} has no tokenizer.json, which text needs")
    return model.tokenizer.encode(text)


def _table(decoded: Mapping[str, Decoded]) -> list[dict[str, object]]:
    """A row for each cache, beside the full one."""
    full = decoded["full"]
    return [
        {
            "cache": name,
            "same_bits": run.same_bits(full),
            "first_other_token": run.first_other_token(full),
            "bytes": run.nbytes,
            "tokens": run.tokens,
        }
        for name, run in decoded.items()
    ]


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (row["cache"], row["same_bits"], row["first_other_token"], readable(row["bytes"]))


def conclusion(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the tables say, in words."""
    equal = {
        arithmetic: {row["cache"].partition("@")[0]: row["same_bits"] for row in rows}
        for arithmetic, rows in tables.items()
    }
    exact = equal["exact"]
    if not (exact["none"] and exact["residual"]):
        return "The claim FAILED here: without the cache, exact arithmetic gave other bits."
    said = [
        "In exact arithmetic no cache and KV-Direct gave every bit that the full cache gave:",
        "it holds nothing that the text, or its residuals, do not give again.",
    ]
    if not exact["window"]:
        said.append("What a window dropped was needed.")
    if not (equal["float32"]["none"] and equal["float32"]["residual"]):
        said.append(
            "In float32 it is the same computation, and other bits: a product of more rows is "
            "summed in another order."
        )
    return " ".join(said)

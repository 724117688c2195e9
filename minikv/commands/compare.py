"""``minikv compare``: cache policies against the full cache."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ..progress import show
from .options import count, counts, names
from .reporting import add_reporting, draw, load_model, measured_by, measured_on, publish

SUMMARY = "cache policies against the full cache"
DESCRIPTION = """\
Continue texts with the full cache and with each policy at each budget: equal tokens (greedy, each
policy on its own text), D_KL(full || policy) of the next token (on the full cache's text), first
token that differs, bytes held. By default 8 prompts of 250 to 400 tokens, 64 new ones. Policies:
residual:every, residual:5 (every 5th layer), residual:embedding, residual:tokens, window,
streaming_llm, h2o, snapkv, tova, none; module:Class is one of your own. Residual loses nothing
under --arithmetic exact. With --quick it takes half a minute on two cores, without many times as
long, and longer where other work is done beside it; residual:embedding replays the text each
token."""
EXAMPLES = """\
  minikv compare --plot compare.png
  minikv compare --policies residual:embedding,residual:5,window --budgets 64"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_reporting(parser, "exact")
    parser.add_argument("--prompts", metavar="FILE", help="texts, each after a line '=== name'")
    parser.add_argument(
        "--budgets", type=counts, metavar="N,N", help="tokens kept (default: 32,64,128)"
    )
    parser.add_argument("--new-tokens", type=count, metavar="N", help="default: 64")
    parser.add_argument(
        "--policies",
        type=names,
        metavar="P,P",
        help="default: residual:every, and what evicts",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="2 prompts, 16 new tokens, budgets 32,128 by default",
    )


def run(args: Namespace) -> None:
    """Compare, and print."""
    from ..experiments import plots, read_prompts
    from ..experiments.compare import BUDGETS, compare, summary

    texts = read_prompts(args.prompts)
    new_tokens = 64
    budgets: Sequence[int] = BUDGETS
    if args.quick:
        new_tokens = 16
        budgets = (32, 128)
        if not args.prompts:
            texts = dict(list(texts.items())[:2])
    new_tokens = args.new_tokens or new_tokens
    budgets = args.budgets or budgets
    start = time.perf_counter()
    model = load_model(args, needs_text=True)
    assert model.tokenizer is not None
    prompts = {name: model.tokenizer.encode(text) for name, text in texts.items()}
    rows = compare(model, prompts, budgets, new_tokens, args.policies, show)
    table = summary(rows)
    lengths = sorted(map(len, prompts.values()))
    note = (
        f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {new_tokens} new ones, "
        f"{time.perf_counter() - start:.0f} s.\n"
        "match: fraction of new tokens, after the first, equal to the full cache's, position by "
        "position; mean and worst prompt. kl: D_KL(full || policy) in nats, over all steps, on "
        "the full cache's text. first_divergence: the earliest in any prompt. bits_equal: all "
        "logits of all steps. bytes: held at the end, mean.\n"
        f"{measured_by(args)}"
    )
    figures = {**measured_on(args), "new_tokens": new_tokens, "rows": table, "prompts": rows}
    publish(args, figures, table, note, keys=2)
    draw(args, plots.compare, table, f"Greedy tokens kept, {args.model}")

"""``minikv memory``: memory over a conversation of 20 turns, measured or counted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import InputError
from ..progress import show
from .options import count, counts, names
from .output import peak_memory
from .reporting import (
    add_reporting,
    check_plot,
    draw,
    load_model,
    measured_by,
    measured_on,
    publish,
)

SUMMARY = "memory over a conversation of 20 turns"
DESCRIPTION = """\
Hold a conversation and watch, turn by turn, what each cache holds (by its formula), has allocated
and at most needed (by tracemalloc), and the time of a token. --shape needs no weights: exact bytes
at a larger model's shape. Takes some eight minutes."""
EXAMPLES = """\
  minikv memory --plot memory.png
  minikv memory --shape gemma-3-4b"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_reporting(parser, "float32")
    parser.add_argument(
        "--turns", type=count, default=20, metavar="N", help="default: 20, which is all"
    )
    parser.add_argument(
        "--reply-tokens", type=count, default=20, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--settings", type=names, metavar="S,S", help="POLICY@BUDGET, as in residual:every@128"
    )
    parser.add_argument(
        "--shape", metavar="NAME", help="smollm-135m, llama-3.2-1b, gemma-3-4b, ..."
    )
    parser.add_argument(
        "--budgets",
        type=counts,
        metavar="N,N",
        help="with --shape (default: 32, 128, and what gives the paper's 42 MB)",
    )


def run(args: Namespace) -> None:
    """Count at a shape, or measure."""
    if (args.shape and args.settings) or (args.budgets and not args.shape):
        raise InputError("--shape goes with --budgets, and a conversation with --settings")
    if args.shape:
        _count(args)
    else:
        _measure(args)


def _count(args: Namespace) -> None:
    from ..experiments import plots
    from ..experiments.accounting import accounting

    rows, note = accounting(args.shape, args.budgets)
    check_plot(args)
    publish(args, {"shape": args.shape, "dtype": "bfloat16", "rows": rows}, _some_turns(rows), note)
    draw(args, plots.memory, rows, f"A conversation, {args.shape}")


def _measure(args: Namespace) -> None:
    from ..experiments import plots, policy_cache, read_conversation
    from ..experiments.memory import SETTINGS, converse, memory

    lines = read_conversation()
    if args.turns > len(lines):
        raise InputError(f"--turns {args.turns}: expected at most {len(lines)}, the conversation's")
    model = load_model(args, needs_text=True)
    settings = args.settings or SETTINGS
    for setting in settings:
        policy_cache(setting, model.weights)  # refuses a wrong one before the conversation
    turns = converse(model, lines[: args.turns], args.reply_tokens, show)
    rows = memory(model, turns, settings, show)
    peak = peak_memory()
    note = (
        f"{len(turns)} turns, replies of {args.reply_tokens} tokens. bytes: K/V, checkpoints "
        "and ids of the tokens seen; allocated: by the cache; peak: with activations; these "
        "two by tracemalloc. seconds_per_token: median of the last 3 of the turn, tracemalloc "
        f"running. Peak of the process, with weights: {peak or 0:,} bytes.\n{measured_by(args)}"
    )
    figures = {**measured_on(args), "rows": rows, "turns": turns, "process_peak": peak}
    publish(args, figures, _some_turns(rows), note)
    draw(args, plots.memory, rows, f"A conversation, {args.model}")


def _some_turns(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The turns that fit a table."""
    return [row for row in rows if row["turn"] in (1, 5, 10, 15, rows[-1]["turn"])]

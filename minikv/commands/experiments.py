"""``minikv compare``, ``memory``, ``frontier`` and ``latency``: the paper's experiments, here."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, TokenizerError
from ..extras import require_extra
from ..weights.progress import show
from . import check_folder, peak_memory, print_json, print_table, status


def add_parser(subparsers: Any) -> None:
    """Add the four commands."""
    from ..weights.fetch import DEFAULT

    def command(run: Any, arithmetic: str, text: str, example: str, about: str) -> Any:
        name = run.__name__.lstrip("_")
        parser = subparsers.add_parser(
            name,
            help=text,
            description=about,
            epilog=f"examples:\n  minikv {name} --plot {name}.png\n  minikv {name} {example}",
        )
        add = parser.add_argument
        add("--model", default=DEFAULT, metavar="M", help="name or folder (default: %(default)s)")
        add("--arithmetic", default=arithmetic, metavar="A", help="default: %(default)s")
        add("--json", action="store_true", help="print rows and figures as JSON")
        add("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf (extra `plots`)")
        parser.set_defaults(run=run)
        return add

    add = command(
        _compare,
        "exact",
        "cache policies against the full cache",
        "--policies residual:embedding,residual:5,window --budgets 64",
        """\
Continue texts with the full cache and with each policy at each budget: equal tokens (greedy, each
policy on its own text), D_KL(full || policy) of the next token (on the full cache's text), first
token that differs, bytes held. By default 8 prompts of 250 to 400 tokens, 64 new ones. Policies:
residual:every, residual:5 (every 5th layer), residual:embedding, residual:tokens, window,
streaming_llm, h2o, snapkv, tova, none. Residual loses nothing under --arithmetic exact. Takes
twenty minutes on two cores, --quick under one; residual:embedding replays the text each token.""",
    )
    add("--prompts", metavar="FILE", help="texts, each after a line '=== name'")
    add("--budgets", type=_numbers, metavar="N,N", help="tokens kept (default: 32,64,128)")
    add("--new-tokens", type=_number, metavar="N", help="default: 64")
    add("--policies", type=_names, metavar="P,P", help="default: residual:every, and what evicts")
    add("--quick", action="store_true", help="2 prompts, 16 new tokens, budgets 32,128 by default")

    add = command(
        _memory,
        "float32",
        "memory over a conversation of 20 turns",
        "--shape gemma-3-4b",
        """\
Hold a conversation and watch, turn by turn, what each cache holds (by its formula), has allocated
and at most needed (by tracemalloc, beside the formula of its peak), and the time of a token.
--shape needs no weights: exact bytes at a larger model's shape. Takes some eight minutes.""",
    )
    add("--turns", type=_number, default=20, metavar="N", help="default: 20, which is all")
    add("--reply-tokens", type=_number, default=20, metavar="N", help="default: %(default)s")
    add("--settings", type=_names, metavar="S,S", help="POLICY@BUDGET, as in residual:every@128")
    add("--shape", metavar="NAME", help="smollm-135m, llama-3.2-1b, gemma-3-4b, ...")
    add(
        "--budgets",
        type=_numbers,
        metavar="N,N",
        help="with --shape (default: 32, 128, and what gives the paper's 42 MB)",
    )

    add = command(
        _frontier,
        "float32",
        "bytes a token against recompute time",
        "--evicted 512",
        """\
For each set of checkpoints: the bytes that a token without K and V keeps, and the measured time to
get them back.""",
    )
    add("--evicted", type=_number, default=256, metavar="N", help="default: %(default)s tokens")
    add("--repeats", type=_number, default=5, metavar="N", help="default: %(default)s")

    add = command(
        _latency,
        "float32",
        "reading K/V against recomputing them",
        "--batches 1,8 --lengths 256",
        """\
Time attention of one new token a sequence over cached keys and values, and over keys and values
made from residuals on the spot, with the arithmetic intensity of both. Pairs of batch and length
beyond 8,192 tokens in all are left out.""",
    )
    add("--batches", type=_numbers, default=[1, 4, 16], metavar="N,N", help="default: 1,4,16")
    add(
        "--lengths",
        type=_numbers,
        default=[128, 512, 2048],
        metavar="N,N",
        help="default: 128,512,2048",
    )
    add("--repeats", type=_number, default=5, metavar="N", help="default: %(default)s")


def _compare(args: argparse.Namespace) -> None:
    from ..experiments import compare, read_prompts

    texts, started = read_prompts(args.prompts), time.perf_counter()
    model = _load(args)
    if args.quick and not args.prompts:
        texts = dict(list(texts.items())[:2])
    prompts = {name: model.tokenizer.encode(text) for name, text in texts.items()}
    new_tokens = args.new_tokens or (16 if args.quick else 64)
    budgets = args.budgets or ((32, 128) if args.quick else compare.BUDGETS)
    policies = args.policies or compare.POLICIES
    rows = compare.compare(model, prompts, budgets, new_tokens, policies, show)
    table, lengths = compare.summary(rows), sorted(map(len, prompts.values()))
    _publish(
        args,
        {"new_tokens": new_tokens, "rows": table, "prompts": rows},
        table,
        f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {new_tokens} new ones, "
        f"{time.perf_counter() - started:.0f} s.\nmatch: fraction of new tokens, after the "
        "first, equal to the full cache's, position by position; mean\nand worst prompt. "
        "kl: D_KL(full || policy) in nats, over all steps, on the full cache's text.\n"
        "first_divergence: the earliest in any prompt. bits_equal: all logits of all steps. bytes: "
        "held at the end, mean.",
        lambda plots: plots.compare(table, args.plot, f"Greedy tokens kept, {args.model}"),
    )


def _memory(args: argparse.Namespace) -> None:
    from ..experiments import memory, policy_cache, read_conversation

    figures: dict[str, Any] = {}
    if args.settings if args.shape else args.budgets:
        raise InputError("--shape goes with --budgets, and a conversation with --settings")
    if args.shape:
        rows, note = memory.accounting(args.shape, args.budgets)
        _check_plot(args)
    else:
        if args.turns > (most := len(read_conversation())):
            raise InputError(f"--turns {args.turns}: expected at most {most}, the conversation's")
        model, settings = _load(args), args.settings or memory.SETTINGS
        for setting in settings:
            policy_cache(setting, model.weights)  # refuses a wrong one before the conversation
        turns = memory.converse(model, read_conversation()[: args.turns], args.reply_tokens, show)
        rows = memory.memory(model, turns, settings, show)
        figures = {"turns": turns, "process_peak": peak_memory()}
        note = (
            f"{len(turns)} turns, replies of {args.reply_tokens} tokens. bytes: K/V, checkpoints "
            "and ids of the tokens seen; allocated: by the cache;\npeak: with activations; these "
            "two by tracemalloc. seconds_per_token: median of the last 3 of the turn, tracemalloc\n"
            f"running. Peak of the process, with weights: {figures['process_peak'] or 0:,} bytes."
        )
    shown = [row for row in rows if row["turn"] in (1, 5, 10, 15, rows[-1]["turn"])]
    _publish(
        args,
        {"rows": rows, **figures},
        shown,
        note,
        lambda plots: plots.memory(rows, args.plot, f"A conversation, {args.shape or args.model}"),
    )


def _frontier(args: argparse.Namespace) -> None:
    from ..experiments.frontier import frontier

    rows = frontier(_load(args), args.evicted, args.repeats, progress=show)
    _publish(
        args,
        {"rows": rows},
        rows,
        f"{args.evicted} tokens without K and V; medians of {args.repeats} steps. bytes: of such a "
        "token (gemma_bytes: at Gemma 3-4B's shape, bfloat16).\nrecompute_seconds: the step, less "
        "the full cache's, for each of these tokens. A number k: every k-th layer.",
        lambda plots: plots.frontier(rows, args.plot, f"A token without K and V, {args.model}"),
    )


def _latency(args: argparse.Namespace) -> None:
    from ..experiments.latency import latency, verdict

    model = _load(args)
    rows = latency(model, args.batches, args.lengths, args.repeats, progress=show)
    said = verdict(model.config, rows)
    _publish(
        args,
        {"verdict": said, "rows": rows},
        rows,
        f"One block, attention included; medians of {args.repeats}. intensity: flop/byte.\n{said}.",
        lambda plots: plots.latency(rows, args.plot, f"One block, {args.model}"),
    )


def _publish(
    args: argparse.Namespace,
    figures: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    note: str,
    plot: Callable[[Any], None],
) -> None:
    """Print the rows and a footer, or JSON; draw the plot."""
    from .. import plots
    from ..experiments import machine

    if args.json:
        print_json(
            {"model": args.model, "arithmetic": args.arithmetic, "machine": machine(), **figures}
        )
    else:
        print_table([*rows[0]], (row.values() for row in rows))
        print(f"\n{note}")
        if not getattr(args, "shape", None):  # then nothing ran
            print(f"{args.model}, arithmetic {args.arithmetic}; {machine()}")
    if args.plot:
        plot(plots)
        print(f"wrote {args.plot}", file=sys.stderr)


def _load(args: argparse.Namespace) -> Any:
    from .. import load

    _check_plot(args)
    with status(f"preparing {args.model} ({args.arithmetic})"):
        model = load(args.model, args.arithmetic)
    if model.tokenizer is None and args.run in (_compare, _memory):
        raise TokenizerError(f"{args.model} has no tokenizer.json, which text needs")
    return model


def _check_plot(args: argparse.Namespace) -> None:
    """Refuse now what would otherwise fail at the end of a long run."""
    if args.plot:
        require_extra("matplotlib", "plots", "--plot")
        if Path(args.plot).suffix not in (".png", ".svg", ".pdf"):
            raise InputError(f"--plot {args.plot}: expected a name that ends in .png, .svg or .pdf")
        check_folder("--plot", args.plot)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from 1 up")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [_number(part.strip()) for part in text.split(",")]

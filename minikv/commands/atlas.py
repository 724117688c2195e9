"""``minikv atlas``: what each way of treating the cache keeps and loses."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..progress import show
from .options import add_arithmetic, add_json, count
from .output import check_output, deliver, print_table, print_text
from .reporting import load_model, measured_by, measured_on, publish

if TYPE_CHECKING:
    from ..atlas import Comparison, Entry

SUMMARY = "what each way of treating the cache keeps and loses"
DESCRIPTION = """\
Without NAME, list sixty-two systems that evict, select, quantise, merge, reuse, inject, share or
speculate, and three studies: kind, verdict, title. With NAME, say what its state is, what is exact,
bounded or lost, which theorem or counter-example says so, and run its smallest demonstration, on a
random model or on arrays, which takes about a second and needs no weights. The exit code is 1 where
a comparison does not come out as the entry says.

With --model, measure caches of few bits (that of NAME, or all) on real weights, beside
recomputation from residuals: the last 128 tokens of 8 prompts, 16 new ones each, which takes about
ten minutes on two cores. A policy is measured by `minikv compare --policies atlas:NAME`."""
EXAMPLES = """\
  minikv atlas
  minikv atlas cake
  minikv atlas lookahead --json
  minikv atlas rotate_kv --model smollm2-135m-instruct"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a system; without it, all")
    parser.add_argument("--model", metavar="NAME", help="measure caches of few bits on this model")
    add_arithmetic(parser, "exact")
    parser.add_argument("--prompts", metavar="FILE", help="texts, each after a line '=== name'")
    parser.add_argument("--new-tokens", type=count, metavar="N", help="default: 16")
    add_json(parser, "entries and comparisons")
    parser.set_defaults(plot=None)


def run(args: Namespace) -> int:
    """List all, or show one, or measure."""
    from ..atlas import entries, entry_named

    check_output(args)
    found = list(entries().values())
    if args.name is not None:
        found = [entry_named(args.name)]
    if args.model is not None:
        _measure(found, args)
        return 0
    if args.prompts or args.new_tokens:
        raise InputError("--prompts and --new-tokens are of a measurement: add --model NAME")
    if args.name is None:
        _list(found, args)
        return 0
    return _show(found[0], args)


def _measure(found: list[Entry], args: Namespace) -> None:
    """Caches of few bits on real weights."""
    from ..experiments import read_prompts
    from ..experiments.few_bits import Setting, few_bits, summary

    rounding = [entry for entry in found if entry.caches]
    if not rounding:
        raise InputError(_not_measured(found[0]))
    texts = read_prompts(args.prompts)
    setting = Setting(new_tokens=args.new_tokens or Setting.new_tokens)
    start = time.perf_counter()
    model = load_model(args, needs_text=True)
    assert model.tokenizer is not None
    prompts = {name: model.tokenizer.encode(text) for name, text in texts.items()}
    rows = few_bits(model, prompts, rounding, setting, show)
    table = summary(rows)
    note = (
        f"{len(prompts)} prompts, their last {setting.tokens} tokens at most, "
        f"{setting.new_tokens} new ones, {time.perf_counter() - start:.0f} s.\n"
        f"bytes: a token, packed; the full cache holds {table[0]['full_bytes']}. logit_moved: the "
        "logit that moves furthest. kl: D_KL(full || cache) in nats, on the full cache's text. "
        "first_divergence: the earliest new token that differs, in any prompt; parted: in how "
        "many.\nmoved: how far a head moves beside its length, slack: how many times as far the "
        "bound 2 tanh(delta / 2) max|v| + eta lets it; medians over all layers. within: heads for "
        f"which the bound holds.\n{measured_by(args)}"
    )
    figures = {
        "command": " ".join(["minikv", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **measured_on(args),
        **vars(setting),
    }
    printed = [{name: row[name] for name in PRINTED} for row in table]
    publish(args, {**figures, "rows": table, "prompts": rows}, printed, note)


PRINTED = (
    "cache",
    "bytes",
    "bits_equal",
    "logit_moved",
    "kl_mean",
    "first_divergence",
    "parted",
    "moved",
    "slack",
    "within",
)


def _not_measured(entry: Entry) -> str:
    """Why there is nothing to measure here, and what there is."""
    if entry.policy is not None:
        name = (
            entry.name
            if entry.policy.__module__.startswith("minikv.caches")
            else f"atlas:{entry.name}"
        )
        return f"{entry.title} is a policy: minikv compare --policies {name}"
    return f"{entry.title} keeps no cache of few bits: leave out --model"


def figures(found: Entry) -> dict[str, object]:
    """An entry as JSON can hold it."""
    return {
        "name": found.name,
        "title": found.title,
        "arxiv": found.arxiv,
        "kind": str(found.kind),
        "state": found.state,
        "verdict": str(found.verdict),
        "reason": found.reason,
        "cure": found.cure,
        "read": found.read,
        "theorems": list(found.theorems),
        "counterexamples": list(found.counterexamples),
        "file": found.file,
    }


def _list(found: list[Entry], args: Namespace) -> None:
    if deliver(args, {"entries": [figures(entry) for entry in found]}):
        return
    rows = [[entry.name, entry.kind, entry.verdict, entry.title] for entry in found]
    print_table(["name", "kind", "verdict", "title"], rows)
    built = sum(entry.built for entry in found)
    print(f"\n{len(found)} systems, {built} of them run here;  minikv atlas NAME  shows one")


def _show(found: Entry, args: Namespace) -> int:
    start = time.perf_counter()
    comparisons: list[Comparison] = []
    if found.demonstrate is not None:
        comparisons = list(found.demonstrate())
    seconds = time.perf_counter() - start
    wrong = not all(comparison.holds for comparison in comparisons)
    told = figures(found) | {
        "comparisons": [vars(comparison) for comparison in comparisons],
        "seconds": seconds,
    }
    if deliver(args, told):
        return int(wrong)
    number = f"; arXiv {found.arxiv}" if found.arxiv else ""
    print_text(f"{found.title}: {found.kind}, {found.verdict}{number}\n")
    lines = {
        "state": found.state,
        "why": found.reason,
        "cure": found.cure,
        "theorems": ", ".join(found.theorems),
        "counter-examples": ", ".join(found.counterexamples),
        "file": found.file,
        "read": found.read,
    }
    print_text("\n".join(f"  {name}: {words}" for name, words in lines.items() if words))
    if not comparisons:
        return 0
    print()
    for comparison in comparisons:
        mark = "as said" if comparison.holds else "NOT AS SAID"
        kind = "control: " if comparison.control else ""
        print_text(f"  {mark}: {kind}{comparison.what}: {comparison.said}")
    print(f"\n{len(comparisons)} comparisons in {seconds:.2f} s")
    return int(wrong)

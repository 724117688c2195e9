"""``minikv drafts``: lossy caches as drafts of an exact verifier."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace

from ..progress import show
from .options import add_arithmetic, add_json, add_model, count, counts, names
from .reporting import load_model, measured_by, measured_on, publish

SUMMARY = "lossy caches as drafts of an exact verifier"
DESCRIPTION = """\
Continue texts greedily while a cache that loses tokens guesses and the full cache verifies
(`minikv generate --draft`): the share of guesses that are accepted, calls of the verifier and how
many fewer than one by one, calls of the draft. By default the last 128 tokens of 8 prompts, 24 new
ones each, 6 guesses a round. Takes some minutes."""
EXAMPLES = """\
  minikv drafts
  minikv drafts --policies h2o,atlas:cake --budgets 64 --json"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_model(parser)
    add_arithmetic(parser, "float32")
    add_json(parser, "rows and figures")
    parser.set_defaults(plot=None)
    parser.add_argument("--prompts", metavar="FILE", help="texts, each after a line '=== name'")
    parser.add_argument("--policies", type=names, metavar="P,P", help="default: six that evict")
    parser.add_argument("--budgets", type=counts, metavar="N,N", help="default: 32,64")
    parser.add_argument("--new-tokens", type=count, metavar="N", help="default: 24")
    parser.add_argument("--ahead", type=count, metavar="K", help="guesses a round (default: 6)")


def run(args: Namespace) -> None:
    """Draft, and print."""
    from ..experiments import read_prompts
    from ..experiments.drafts import BUDGETS, POLICIES, Setting, drafts, summary

    texts = read_prompts(args.prompts)
    setting = Setting(new_tokens=args.new_tokens or 24, ahead=args.ahead or 6)
    start = time.perf_counter()
    model = load_model(args, needs_text=True)
    assert model.tokenizer is not None
    prompts = {name: model.tokenizer.encode(text) for name, text in texts.items()}
    policies = args.policies or POLICIES
    rows = drafts(model, prompts, policies, args.budgets or BUDGETS, setting, show)
    table = summary(rows)
    note = (
        f"{len(prompts)} prompts, their last {setting.tokens} tokens at most, "
        f"{setting.new_tokens} new ones, {setting.ahead} guesses a round, "
        f"{time.perf_counter() - start:.0f} s.\n"
        "accepted: share of the guesses. calls: of the verifier, after the prompts; saved: fewer "
        "than one by one.\ndraft_calls: through the lossy cache. same_tokens: as one by one.\n"
        f"{measured_by(args)}"
    )
    figures = {
        "command": " ".join(["minikv", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        **measured_on(args),
        **vars(setting),
    }
    publish(args, {**figures, "rows": table, "prompts": rows}, table, note)

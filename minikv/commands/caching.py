"""Which cache an answer is written with: the options of ``generate`` and ``chat``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..caches import POLICIES, Cache
from ..errors import InputError
from ..experiments.policies import policy_cache
from ..model import Model
from .options import amount, variable
from .output import check_folder


def add_cache(parser: ArgumentParser) -> None:
    """Add ``--cache``, what belongs to it, and the files that a cache is kept in."""
    group = parser.add_argument_group("the cache")
    group.add_argument(
        "--cache",
        default="full",
        metavar="POLICY",
        help=f"{', '.join(POLICIES)} (default: %(default)s), or module:Class of your own; full, "
        "none and residual alone lose nothing, under --arithmetic exact",
    )
    group.add_argument(
        "--budget",
        type=amount,
        metavar="N",
        help="tokens whose keys and values are kept (default: 128, of a policy that has one)",
    )
    group.add_argument(
        "--checkpoints",
        metavar="C",
        help="what residual keeps of older tokens: embedding (default), tokens, every, a number K "
        "(every K-th layer), or layers as 0+10+20",
    )
    group.add_argument(
        "--parameter",
        action="append",
        default=[],
        type=variable,
        metavar="NAME=VALUE",
        help="another parameter of the policy, as sinks=8; may be given again",
    )
    parser.set_defaults(draft=None)  # of `generate` alone: see drafting.py
    group.add_argument("--load-cache", metavar="FILE", help="go on where --save-cache ended")
    group.add_argument("--save-cache", metavar="FILE", help="keep the cache at the end")


def check_cache(args: Namespace) -> None:
    """Refuse what contradicts itself, before a model is loaded."""
    policy, _, detail = args.cache.partition("@")[0].partition(":")
    if policy not in POLICIES and not detail:
        raise InputError(f"--cache {args.cache}: unknown, choose from {', '.join(POLICIES)}")
    if args.budget is not None and policy in ("full", "none") and args.draft is None:
        raise InputError(f"--budget {args.budget}: the policy {policy!r} has no budget")
    if args.budget is not None and "@" in args.cache and args.draft is None:
        raise InputError(f"--cache {args.cache} and --budget {args.budget}: give one budget")
    if args.checkpoints and policy != "residual":
        raise InputError(f"--checkpoints {args.checkpoints}: only --cache residual has some")
    if args.checkpoints and ":" in args.cache:
        raise InputError(f"--cache {args.cache} and --checkpoints: give the checkpoints once")
    if args.save_cache:
        check_folder("--save-cache", args.save_cache)


def chosen_cache(args: Namespace, model: Model) -> Cache:
    """An empty cache as the options say."""
    name = args.cache
    if args.checkpoints:
        policy, at_sign, budget = name.partition("@")
        name = f"{policy}:{args.checkpoints}{at_sign}{budget}"
    budget = 128
    if args.budget is not None and args.draft is None:
        budget = args.budget
    return policy_cache(name, model.weights, budget, **dict(args.parameter))

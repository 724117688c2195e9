"""``minikv conform``: put any decoder to the test, and tell rounding from a bug."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..errors import InputError
from ..progress import show
from .options import add_json, names
from .output import check_folder, check_output, deliver, line_width, print_text

SUMMARY = "put any decoder to the test: rounding, or a bug?"
DESCRIPTION = """\
Compare all ways to a decoder's logits: cached and uncached, in chunks, in a
padded batch, behind a kept prefix, truncated, forked, at the edges of windows
and budgets. Each axis gets a verdict: same bits, rounding, near tie, undecided,
or a bug with its smallest case.

TARGET is FILE.py:NAME (an adapter, or a function from token ids to logits),
transformers:FOLDER, llama.cpp:FILE.gguf, openai:http://127.0.0.1:PORT, or
minikv:NAME. Exit code 0; 1 for a bug; 2 where an axis stays undecided or
nothing that was asked for could be tested."""
EXAMPLES = """\
  minikv conform my_decoder.py:Adapter
  minikv conform minikv:smollm2-135m-instruct --quick
  minikv conform transformers:FOLDER --dtype bfloat16 --html report.html
  minikv conform my_decoder.py:logits --axes causality,length --json"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("target", metavar="TARGET", nargs="?", help="what is tested")
    effort = parser.add_mutually_exclusive_group()
    for word in ("quick", "thorough"):
        effort.add_argument(
            f"--{word}",
            action="store_const",
            dest="effort",
            const=word,
            help={"quick": "shorter texts, fewer ways", "thorough": "longer ones, more"}[word],
        )
    parser.add_argument("--axes", type=names, metavar="A,B", help="some of them (--list)")
    parser.add_argument("--list", action="store_true", help="say what each axis means")
    parser.add_argument("--dtype", metavar="D", help="in which the target is to compute")
    parser.add_argument(
        "--twin",
        default="wide",
        choices=["wide", "noise", "none"],
        help="the best twin that may be used (default: %(default)s, float64)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the texts (default: %(default)s)"
    )
    parser.add_argument("--length", type=int, metavar="N", help="tokens of a text")
    parser.add_argument("--junit", metavar="FILE", help="write a JUnit file")
    parser.add_argument("--html", metavar="FILE", help="write a page")
    parser.add_argument("--issue", action="store_true", help="print a text for an issue for a bug")
    add_json(parser)
    parser.set_defaults(effort="default")


def run(args: Namespace) -> int:
    """Test it, and return the exit code."""
    from ..conform.axes import AXES

    check_output(args)
    if args.list:
        if deliver(args, {"axes": {axis.name: axis.meaning for axis in AXES.values()}}):
            return 0
        for axis in AXES.values():
            print_text(f"{axis.name}: {axis.meaning}")
        return 0
    if args.target is None:
        raise InputError("no TARGET given, expected for example  my_decoder.py:Adapter")
    return _test(args)


def _test(args: Namespace) -> int:
    from ..conform import conform
    from ..conform.outcome import WIDTH
    from ..conform.report import as_figures, as_html, as_issue, as_junit
    from ..conform.targets import find_target

    files = {"--junit": args.junit, "--html": args.html}
    for option, path in files.items():
        if path:
            check_folder(option, path)
    if args.length is not None and args.length < 2:
        raise InputError(f"--length {args.length}, expected 2 or more")
    report = conform(
        find_target(args.target, args.dtype),
        args.axes,
        effort=args.effort,
        seed=args.seed,
        twin=args.twin,
        length=args.length,
        progress=show,
    )
    if args.junit:
        Path(args.junit).write_text(as_junit(report), encoding="utf-8")
    if args.html:
        Path(args.html).write_text(as_html(report), encoding="utf-8")
    if deliver(args, as_figures(report)):
        return report.exit_code
    print(report.fitted(line_width() or WIDTH))
    if args.issue:
        for bug in report.bugs:
            print(f"\n{as_issue(report, bug)}")
    return report.exit_code

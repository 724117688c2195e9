"""Check T1 to T11, bit for bit, on random models (the default, without weights) or on a fetched
one; drop each theorem's hypothesis and see it fail; certify the flow of data for all inputs of the
shapes (D). Exit code 1 if anything fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import check_folder, peak_memory, print_table
from .models import print_bytes


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "prove",
        help="check the eleven theorems, and that each can fail",
        description=__doc__,
        epilog="examples:\n  minikv prove --quick\n  minikv prove --only T2,T4 --html report.html",
    )
    add, source = parser.add_argument, parser.add_mutually_exclusive_group()
    source.add_argument("--model", metavar="NAME", help="a fetched model or a folder")
    source.add_argument("--shape", metavar="NAME", help="D and T1 at a true shape: gemma-3-4b, ...")
    source.add_argument("--random", action="store_true", help="random models (default)")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_const", dest="count", const=8, help="fewer cases")
    effort.add_argument("--thorough", action="store_const", dest="count", const=400, help="more")
    add("--only", metavar="T2,T4", help="some of T1 to T11 and D, the dataflow certificate")
    add("--seed", type=int, default=0, metavar="S", help="of the random models (default: 0)")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    add("--html", type=Path, metavar="FILE", help="write a report with formulas and plots")
    parser.set_defaults(run=_prove, count=40)


def _prove(args: argparse.Namespace) -> int:
    from .. import __version__
    from ..fingerprint import environment, fingerprint
    from ..verify.cases import random_case
    from ..verify.page import page
    from ..verify.run import CLAIMS, conclusion, prove
    from ..verify.texts import long_cases, real_cases
    from ..weights.progress import show

    ids = args.only.upper().split(",") if args.only else list(CLAIMS)
    if unknown := set(ids) - CLAIMS.keys():
        raise InputError(f"--only {min(unknown)}: expected some of {', '.join(CLAIMS)}")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: expected a number from 0 up")
    for option, path in (("--json", args.json), ("--html", args.html)):
        if path:
            check_folder(option, path)
    if args.shape:
        if args.only or args.html or args.count != 40:
            raise InputError("--shape runs D and T1: only --seed and --json go with it")
        return _shape(args)
    if args.model:
        controls = real_cases(args.model, 12 if args.count <= 40 else 48)
        cases = controls[: args.count // 20 or 1]  # quick: 1, default: 2
        on = f"{args.model} with {len(cases)} pair{'s' * (len(cases) > 1)} of texts"
    else:
        steps, draw = range(args.count), random_case
        cases = [draw(args.seed + step, (step + 1) / args.count) for step in steps]
        controls = [draw(args.seed + step, scale=1.0) for step in range(100)]
        on = f"{args.count} random models and texts (seed {args.seed})"

    def watched(number: int, some: list[Any]) -> Iterator[Any]:
        for step, case in enumerate(some):
            show(ids[number], (number + step / len(some)) / len(ids), 1.0)
            yield case

    width = max(20, shutil.get_terminal_size((110, 24)).columns - 42)
    print(f"    {'statement':<{width}} {'cases':>5} {'time':>8}  {'verdict':<7}  control")
    results = []
    for number, id in enumerate(ids):
        claim, some = CLAIMS[id], cases[:1] if args.model and id == "D" else cases
        drawn = long_cases(args.model) if args.model and claim.windowed else None
        some, others = (
            list(filter(claim.applies, part if drawn is None else drawn))
            for part in (some, controls)
        )
        if not some:
            print(f"{id:<3} {claim.statement[:width]:<{width}}     - (it is about sliding windows)")
            continue
        result = prove(claim, watched(number, some), others)
        results.append(result)
        print("\r\033[K" * sys.stderr.isatty(), end="", file=sys.stderr, flush=True)
        print(
            f"{id:<3} {claim.statement[:width]:<{width}} {result.examples:>5} "
            f"{result.seconds:>6.2f} s  {result.verdict:<7}  {'found' * bool(result.control)}"
            + f"\n{result.failure}"
            * bool(result.failure),
            flush=True,
        )
    example = max(controls[:9], key=lambda case: case.model.config.num_hidden_layers)
    facts = {
        "fingerprint": fingerprint(example.model, example.ids),
        "minikv": __version__,
        **environment(),
    }
    said = conclusion(results, on)
    print(f"\nfingerprint of one text: {facts['fingerprint']}\n{said}")
    if args.json:
        told = {"results": [*map(asdict, results)], "facts": facts, "conclusion": said}
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if args.html:
        args.html.write_text(page(results, example, on, facts), encoding="utf-8")
    return int(any(result.verdict != "holds" for result in results))


def _shape(args: argparse.Namespace) -> int:
    from ..config import SLIDING
    from ..experiments.memory import per_token
    from ..verify.blocks import NOTE, STATEMENTS, prove_shape
    from ..verify.shapes import shape
    from ..weights.progress import show

    config = shape(args.shape)
    results = prove_shape(config, args.seed, show)
    print("\r\033[K" * sys.stderr.isatty(), end="", file=sys.stderr, flush=True)
    print(
        f"{args.shape}: {config.num_parameters:,} parameters, {config.num_hidden_layers} layers, "
        f"{config.layer_types.count(SLIDING)} sliding\n"
    )
    print_table(
        ["", "statement", "cases", "seconds", "verdict", "control"],
        (
            [
                r.id,
                STATEMENTS[r.id],
                r.examples,
                r.seconds,
                r.verdict,
                "found" * bool(r.control),
            ]
            for r in results
        ),
    )
    print(*(r.failure for r in results if r.failure), sep="\n")
    print_bytes(config)
    seconds, peak = sum(result.seconds for result in results), peak_memory()
    print(f"\n{seconds:.0f} s, peak memory {(peak or 0) / 1e6:.0f} MB. {NOTE}")
    if args.json:
        told = {
            "shape": args.shape,
            "results": [*map(asdict, results)],
            "seconds": seconds,
            "peak_memory_bytes": peak,
            "bytes_per_token": per_token(config),
        }
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(result.verdict != "holds" for result in results))

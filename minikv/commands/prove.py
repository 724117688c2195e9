"""``minikv prove``: check the theorems, bit for bit, and see each of them fail."""

from __future__ import annotations

import functools
import shutil
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..colour import judged
from ..config import SLIDING, ModelConfig
from ..environment import environment
from ..errors import InputError
from ..fingerprint import fingerprint
from ..progress import clear, show
from ..shapes import per_token, shape
from ..verify import CLAIMS, Case, Theorem, random_case
from ..verify.blocks import NOTE, STATEMENTS, prove_shape
from ..verify.page import page
from ..verify.run import Result, conclusion, prove
from ..verify.texts import long_cases, real_cases
from .extracted import run_extracted
from .inspect import print_bytes
from .options import add_json
from .output import (
    alone,
    check_folder,
    check_output,
    deliver,
    filled,
    peak_memory,
    print_table,
    print_text,
)

SUMMARY = "check the theorems, and that each can fail"
DESCRIPTION = """\
Check the theorems, bit for bit, on random models (the default, without weights) or on a fetched
one; drop each theorem's hypothesis and see it fail; certify the flow of data for all inputs of the
shapes (D). R: the theorem is proved in proofs/rocq. E: it is proved of the decoder written there,
which --extracted runs beside the Python. Exit code 1 if anything fails."""
EXAMPLES = """\
  minikv prove --quick
  minikv prove --only T2,T4 --html report.html
  minikv prove --quick --extracted"""

Say = Callable[[str], None]

CASES = 40  # of random models, without --quick or --thorough
EXTRACTED_CASES = 10  # random models for the extracted decoder, two of each family
SAME_BITS = "same bits"
DIFFERS = "DIFFERS"
NOT_RUN = "not run"
HOW_TO_RUN = (
    "R and E are not checked here: python proofs/rocq/check.py builds R, --extracted runs E, "
    "in a checkout."
)
RAN = (
    f"E: the decoder extracted from Rocq, on {EXTRACTED_CASES} random models beside the Python; "
    "R is not checked here: python proofs/rocq/check.py."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--model", metavar="NAME", help="a fetched model or a folder")
    source.add_argument("--shape", metavar="NAME", help="D and T1 at a true shape: gemma-3-4b, ...")
    source.add_argument("--random", action="store_true", help="random models (default)")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_const", dest="count", const=8, help="fewer cases")
    effort.add_argument("--thorough", action="store_const", dest="count", const=400, help="more")
    parser.set_defaults(count=CASES)
    parser.add_argument(
        "--only", metavar="T2,T4", help=f"some of {', '.join(CLAIMS)}; D is the dataflow's"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the random models (default: 0)"
    )
    parser.add_argument(
        "--extracted",
        action="store_true",
        help="run the decoder that was proved in Rocq beside the Python, on random models "
        "(in a checkout, with coq and ocaml)",
    )
    add_json(parser, "the results, and nothing else,")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a report with formulas and plots"
    )


@dataclass(frozen=True)
class Material:
    """What the claims are checked on.

    Parameters
    ----------
    said : str
        What it is, for the conclusion.
    cases : list of Case
        On which a claim must hold.
    controls : list of Case
        Among which one must show a difference without the claim's hypothesis.
    model : str or None
        The fetched model; None for random ones.
    """

    said: str
    cases: list[Case]
    controls: list[Case]
    model: str | None = None

    def of(self, claim: Theorem) -> tuple[list[Case], list[Case]]:
        """The cases and controls that a claim says something about."""
        cases = self.cases
        controls = self.controls
        if self.model and claim.id == "D":
            cases = cases[:1]  # it is about the model's shape, whatever the text
        if self.model and claim.windowed:
            cases = controls = long_cases(self.model)
        return list(filter(claim.applies, cases)), list(filter(claim.applies, controls))


def run(args: Namespace) -> int:
    """Prove, print, and write what is asked for."""
    ids = _claims(args.only)
    _check(args)
    if args.shape:
        return _prove_shape(args)
    say = _teller(args)
    extracted = NOT_RUN
    if args.extracted:
        extracted = _extracted(args.seed, say)
    material = _material(args)
    table = Table(extracted, say)
    results = []
    for number, id in enumerate(ids):
        claim = CLAIMS[id]
        cases, controls = material.of(claim)
        if not cases:
            table.skip(claim)
            continue
        result = prove(claim, _watched(cases, id, number, len(ids)), controls)
        results.append(result)
        clear()
        table.row(claim, result)
    example = max(material.controls[:9], key=lambda case: case.model.config.num_hidden_layers)
    digest = fingerprint(example.model, example.ids)
    facts = {"fingerprint": digest, "minikv": __version__, **environment()}
    said = conclusion(results, material.said)
    of_columns = HOW_TO_RUN if extracted == NOT_RUN else RAN
    say(filled(f"\n{of_columns}\nfingerprint of one text: {digest}\n{said}", None))
    told = [asdict(result) for result in results]
    figures = {"on": material.said, "results": told, "extracted": extracted, "facts": facts}
    deliver(args, {**figures, "conclusion": said})
    if args.html:
        made = page(results, example, material.said, facts)
        args.html.write_text(made, encoding="utf-8")
    return max(_exit_code(results), int(extracted == DIFFERS))


def _extracted(seed: int, say: Say) -> str:
    """What came of running the extracted decoder; where bits differ, its report is printed."""
    report, differ = run_extracted("--random", EXTRACTED_CASES, "--seed", seed)
    if differ:
        say(report)
        return DIFFERS
    return SAME_BITS


class Table:
    """The results, each printed as soon as it is there, as wide as the terminal.

    Parameters
    ----------
    extracted : str
        What the column E says of a theorem about the decoder that is extracted.
    say : callable
        Prints a line.
    """

    def __init__(self, extracted: str, say: Say) -> None:
        self.extracted = extracted
        self.say = say
        self.width = max(20, shutil.get_terminal_size((110, 24)).columns - 60)
        columns = f"{'cases':>5} {'time':>8}  verdict  control  R       E"
        say(f"    {self._cell('statement')} {columns}")

    def row(self, claim: Theorem, result: Result) -> None:
        """Print a result, and below it why it does not hold."""
        figures = f"{result.examples:>5} {result.seconds:>6.2f} s"
        in_rocq = "proved" if claim.abstract else "-"
        extracted = self.extracted if claim.concrete else "-"
        said = [f"{result.verdict:<7}", f"{_found(result):<7}", f"{in_rocq:<6}", extracted]
        self._say(claim, "  ".join([figures, *map(judged, said)]))
        if result.failure:
            self.say(result.failure)

    def skip(self, claim: Theorem) -> None:
        """Print that a claim says nothing about this model."""
        self._say(claim, "    - (it is about sliding windows)")

    def _say(self, claim: Theorem, figures: str) -> None:
        """Print a line, and below it what is left of the statement."""
        first, *more = textwrap.wrap(claim.statement, self.width)
        self.say(f"{claim.id:<3} {self._cell(first)} {figures}")
        for line in more:
            self.say(f"    {line}")

    def _cell(self, text: str) -> str:
        return f"{text:<{self.width}}"


def _claims(only: str | None) -> list[str]:
    """The ids that ``--only`` names."""
    if not only:
        return list(CLAIMS)
    ids = only.upper().split(",")
    for id in ids:
        if id not in CLAIMS:
            raise InputError(f"--only {id}: expected some of {', '.join(CLAIMS)}")
    return ids


def _check(args: Namespace) -> None:
    """Refuse now what would fail later."""
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: expected a number from 0 up")
    check_output(args)
    if args.html:
        check_folder("--html", args.html)
    if args.extracted and args.model:
        raise InputError(
            "--extracted runs random models: for a fetched one, "
            f"minikv fingerprint --extracted --model {args.model}"
        )
    if args.shape and (args.only or args.html or args.extracted or args.count != CASES):
        raise InputError("--shape runs D and T1: only --seed, --json and --output go with it")


def random_material(count: int, seed: int) -> Material:
    """Random models and texts, the smallest first, and a hundred more for the controls."""
    return Material(
        f"{count} random models and texts (seed {seed})",
        [random_case(seed + step, (step + 1) / count) for step in range(count)],
        [random_case(seed + step, scale=1.0) for step in range(100)],
    )


def _material(args: Namespace) -> Material:
    if not args.model:
        return random_material(args.count, args.seed)
    tokens = 12
    if args.count > CASES:
        tokens = 48
    controls = real_cases(args.model, tokens)
    cases = controls[: args.count // 20 or 1]  # quick: 1, default: 2
    pairs = "1 pair" if len(cases) == 1 else f"{len(cases)} pairs"
    return Material(f"{args.model} with {pairs} of texts", cases, controls, args.model)


def _watched(cases: Sequence[Case], id: str, number: int, claims: int) -> Iterator[Case]:
    """The cases, with a bar that says how far all claims are, also within a case."""
    for step, case in enumerate(cases):

        def tell(label: str, done: float, total: float = 1.0, before: int = step) -> None:
            show(id, number + (before + done / total) / len(cases), claims)

        tell("", 0)
        yield replace(case, progress=tell)


def _prove_shape(args: Namespace) -> int:
    config = shape(args.shape)
    results = prove_shape(config, args.seed, show)
    clear()
    seconds = sum(result.seconds for result in results)
    peak = peak_memory()
    if not alone(args):
        _print_shape(args.shape, config, results)
        print_text(f"\n{seconds:.0f} s, peak memory {(peak or 0) / 1e6:.0f} MB. {NOTE}")
    told: dict[str, Any] = {
        "shape": args.shape,
        "results": [asdict(result) for result in results],
        "seconds": seconds,
        "peak_memory_bytes": peak,
        "bytes_per_token": per_token(config),
    }
    deliver(args, told)
    return _exit_code(results)


def _print_shape(name: str, config: ModelConfig, results: Sequence[Result]) -> None:
    print_text(
        f"{name}: {config.num_parameters:,} parameters, {config.num_hidden_layers} layers, "
        f"{config.layer_types.count(SLIDING)} sliding\n"
    )
    print_table(
        ["", "statement", "cases", "seconds", "verdict", "control"],
        (
            [
                result.id,
                STATEMENTS[result.id],
                result.examples,
                result.seconds,
                result.verdict,
                _found(result),
            ]
            for result in results
        ),
        verdicts=["verdict", "control"],
    )
    for result in results:
        if result.failure:
            print(result.failure)
    print()
    print_bytes(config)


def _found(result: Result) -> str:
    if result.control:
        return "found"
    return ""


def _teller(args: Namespace) -> Say:
    """Prints a line at once; or nothing, where standard output is for JSON."""
    if alone(args):
        return lambda text: None
    return functools.partial(print, flush=True)


def _exit_code(results: Sequence[Result]) -> int:
    """1 if anything does not hold."""
    return int(any(result.verdict != "holds" for result in results))

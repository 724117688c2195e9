"""``minikv paper``: the paper's tables, figures and claims, each run by its own protocol."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MinikvError
from ..progress import clear, show
from .options import add_json
from .output import alone, check_folder, check_output, deliver, print_table, print_text

if TYPE_CHECKING:
    from ..paper.claim import Claim
    from ..paper.run import Result, Section

SUMMARY = "the paper, table by table: its figures beside ours"
DESCRIPTION = """\
Run the experiments of arXiv 2603.19664 by its own protocols, print its figures beside ours, and
say of each claim whether it is reproduced, reproduced only under one reading, refuted, differs, or
cannot be checked here. What needs weights that are not fetched is left out, and said. --list only
lists."""
EXAMPLES = """\
  minikv paper --list
  minikv paper --quick --html paper.html
  minikv paper --table 2
  minikv paper --figure 5 --model FOLDER --model OTHER
  minikv paper --claim equation-28 --json
  minikv paper --machine epyc-2-cores --keep docs/paper/results"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--table", metavar="N", help="the claims of one table of the paper")
    which.add_argument("--figure", metavar="N", help="the claims of one figure of the paper")
    which.add_argument("--claim", metavar="ID", help="one claim, as --list names it")
    which.add_argument(
        "--machine",
        metavar="M",
        help="measure this machine, by a name, for the map of figure 7; --keep says where",
    )
    which.add_argument("--list", action="store_true", help="list the claims, and run none")
    parser.add_argument("--quick", action="store_true", help="fewer texts, lengths and tokens")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="run on this model in place of a claim's own; given again, on each, one by one",
    )
    add_json(parser)
    parser.add_argument(
        "--html", metavar="FILE", help="write a page with the plots (extra `plots`)"
    )
    parser.add_argument(
        "--keep", metavar="FOLDER", help="write each claim's figures as FOLDER/ID.json"
    )


def run(args: Namespace) -> None:
    """Run what is chosen; print it, and write what is asked for."""
    check_output(args)
    if args.machine is not None:
        _measure(args)
        return
    claims = _chosen(args)
    _check(args, claims)
    if args.list:
        _list(claims, args)
        return
    sections = _examined(args, claims)
    if not deliver(args, {"quick": args.quick, **_grouped(sections, args.model)}):
        _summarise(sections)
    if args.html:
        from ..paper.render import page

        Path(args.html).write_text(page(sections), encoding="utf-8")


def _measure(args: Namespace) -> None:
    """This machine's memory and arithmetic, kept for whoever makes the page."""
    from ..experiments.machines import checked_name, measure, write

    checked_name(args.machine)
    given = [name for name in ("quick", "model", "html") if getattr(args, name)]
    if given:
        raise InputError(f"--machine measures no claim: leave out --{given[0]}")
    if not args.keep:
        raise InputError("--machine: expected --keep FOLDER, where its figures are to be written")
    _check_kept(args.keep)
    told = measure(args.machine)
    path = write(args.keep, told)
    if deliver(args, {"file": str(path), **asdict(told)}):
        return
    print_text(
        f"{told.described}: a copy moves {told.traffic / 1e9:.1f} GB/s "
        f"({told.lowest[0] / 1e9:.1f} to {told.highest[0] / 1e9:.1f}), a product does "
        f"{told.rate / 1e9:.1f} GFLOP/s ({told.lowest[1] / 1e9:.1f} to "
        f"{told.highest[1] / 1e9:.1f}); wrote {path}"
    )


def _check_kept(folder: str) -> None:
    if not Path(folder).is_dir():
        raise InputError(f"--keep {folder}: expected a folder that exists")


def _chosen(args: Namespace) -> list[Claim]:
    from ..paper.claims import CLAIMS, chosen

    for kind in ("table", "figure"):
        number = getattr(args, kind)
        if number is not None:
            return chosen(f"{kind}-{number}")
    if args.claim is not None:
        return chosen(args.claim)
    return list(CLAIMS.values())


def _check(args: Namespace, claims: Sequence[Claim]) -> None:
    """Refuse what contradicts itself, and what would fail at the end."""
    if args.list:
        given = [name for name in ("quick", "model", "html", "keep") if getattr(args, name)]
        if given:
            raise InputError(f"--list runs nothing: leave out --{given[0]}")
        return
    _check_models(args.model, claims)
    if args.keep and len(args.model) > 1:
        raise InputError(
            f"--keep writes one file a claim, and {len(args.model)} models are given: run one "
            "after the other, each into a folder of its own"
        )
    if args.html:
        from ..extras import require_extra

        require_extra("matplotlib", "plots", "--html")
        check_folder("--html", args.html)
    if args.keep:
        _check_kept(args.keep)


def _check_models(names: Sequence[str], claims: Sequence[Claim]) -> None:
    """Refuse a model that is not there, is named again, or that nothing chosen would read."""
    from ..weights import resolve

    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"--model {name} is given twice")
        resolve(name)
    if names and not any(claim.models for claim in claims):
        told = ", ".join(claim.id for claim in claims)
        raise InputError(f"--model {names[0]}: {told} reads no weights, leave it out")


def _list(claims: Sequence[Claim], args: Namespace) -> None:
    told = {claim.id: {"title": claim.title, "needs": claim.models} for claim in claims}
    if deliver(args, {"claims": told}):
        return
    rows = [[claim.id, claim.title, ", ".join(claim.models) or "no weights"] for claim in claims]
    print_table(["claim", "what it says", "needs"], rows)


def _examined(args: Namespace, claims: Sequence[Claim]) -> list[Section]:
    """What came of each claim on each model; each printed as soon as it is there.

    Raises
    ------
    MinikvError
        The first one, where nothing could be run.
    """
    from ..paper.run import Section, examine, keep

    sections: list[Section] = []
    errors: list[MinikvError] = []
    for claim, on in _asked(claims, args.model):
        try:
            result = examine(claim, args.quick, [on] if on else [], show)
        except MinikvError as error:
            errors.append(error)
            sections.append(Section(claim, on, None, f"not run: {error}"))
            continue
        sections.append(Section(claim, on, result))
        clear()
        if not alone(args):
            _print(sections[-1], result)
        if args.keep:
            keep(result, args.keep)
    if len(errors) == len(sections):
        raise errors[0]
    return sections


def _asked(claims: Sequence[Claim], models: Sequence[str]) -> Iterator[tuple[Claim, str]]:
    """Each claim with each model that was given; with no name where it needs none."""
    for claim in claims:
        for on in models if claim.models and models else [""]:
            yield claim, on


def _grouped(sections: Sequence[Section], models: Sequence[str]) -> dict[str, Any]:
    """Results for a program by claim; of several models, by model and claim."""
    if len(models) < 2:
        return _by_claim(sections)
    of_none = [section for section in sections if not section.on]
    each = {
        name: _by_claim([section for section in sections if section.on == name]) for name in models
    }
    return {**_by_claim(of_none), "models": each}


def _by_claim(sections: Sequence[Section]) -> dict[str, Any]:
    """What was not run, and why; and the results of the others."""
    return {
        "not_run": {each.claim.id: each.missing for each in sections if each.result is None},
        "claims": {each.claim.id: each.result.to_json() for each in sections if each.result},
    }


def _print(section: Section, result: Result) -> None:
    from ..paper.render import ran_on

    claim = section.claim
    finding = result.finding
    on = f" on {section.on}" if section.on else ""
    print_text(f"{claim.where}: {claim.title} [{claim.id}]{on}")
    print_text(f"The paper: {claim.says}")
    print_text(f"Run: {claim.protocol}")
    print()
    print_table(finding.columns, finding.rows)
    print()
    print_text(f"{str(finding.verdict).upper()}. {finding.reason}")
    print_text(f"({ran_on(result)})")
    print(flush=True)


def _summarise(sections: Sequence[Section]) -> None:
    from ..paper.render import summary

    if len(sections) > 1:
        print_table(*summary(sections))

"""``minikv paper``: the paper's tables, figures and claims, each run by its own protocol."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FetchError, InputError
from ..progress import clear, show
from .options import add_json
from .output import alone, check_folder, check_output, deliver, print_table, print_text

if TYPE_CHECKING:
    from ..paper.claim import Claim
    from ..paper.run import Result

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
  minikv paper --claim equation-28 --json"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--table", metavar="N", help="the claims of one table of the paper")
    which.add_argument("--figure", metavar="N", help="the claims of one figure of the paper")
    which.add_argument("--claim", metavar="ID", help="one claim, as --list names it")
    which.add_argument("--list", action="store_true", help="list the claims, and run none")
    parser.add_argument("--quick", action="store_true", help="fewer texts, lengths and tokens")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="run on this model in place of a claim's own; may be given again",
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
    claims = _chosen(args)
    if args.list:
        _list(claims, args)
        return
    _check(args)
    results, missing = _examined(args, claims)
    told = {id: result.to_json() for id, result in results.items()}
    if not deliver(args, {"quick": args.quick, "not_run": missing, "claims": told}):
        _summarise(claims, results, missing)
    if args.html:
        from ..paper.render import page

        asked = {claim.id: claim for claim in claims}
        Path(args.html).write_text(page(asked, results, missing), encoding="utf-8")


def _chosen(args: Namespace) -> list[Claim]:
    from ..paper.claims import CLAIMS, chosen

    for kind in ("table", "figure"):
        number = getattr(args, kind)
        if number is not None:
            return chosen(f"{kind}-{number}")
    if args.claim is not None:
        return chosen(args.claim)
    return list(CLAIMS.values())


def _check(args: Namespace) -> None:
    """Refuse what would fail at the end."""
    if args.html:
        from ..extras import require_extra

        require_extra("matplotlib", "plots", "--html")
        check_folder("--html", args.html)
    if args.keep and not Path(args.keep).is_dir():
        raise InputError(f"--keep {args.keep}: expected a folder that exists")


def _list(claims: Sequence[Claim], args: Namespace) -> None:
    told = {claim.id: {"title": claim.title, "needs": claim.models} for claim in claims}
    if deliver(args, {"claims": told}):
        return
    rows = [[claim.id, claim.title, ", ".join(claim.models) or "no weights"] for claim in claims]
    print_table(["claim", "what it says", "needs"], rows)


def _examined(args: Namespace, claims: Sequence[Claim]) -> tuple[dict[str, Result], dict[str, str]]:
    """The results by id, each printed as soon as it is there; and why others were not run."""
    from ..paper.run import examine, keep

    results: dict[str, Result] = {}
    missing: dict[str, str] = {}
    for claim in claims:
        try:
            result = examine(claim, args.quick, args.model, show)
        except FetchError as error:
            if len(claims) == 1 or args.model:
                raise
            missing[claim.id] = f"not run: {error}"
            continue
        results[claim.id] = result
        clear()
        if not alone(args):
            _print(claim, result)
        if args.keep:
            keep(result, args.keep)
    return results, missing


def _print(claim: Claim, result: Result) -> None:
    from ..paper.render import ran_on

    finding = result.finding
    print_text(f"{claim.where}: {claim.title} [{claim.id}]")
    print_text(f"The paper: {claim.says}")
    print_text(f"Run: {claim.protocol}")
    print()
    print_table(finding.columns, finding.rows)
    print()
    print_text(f"{str(finding.verdict).upper()}. {finding.reason}")
    print_text(f"({ran_on(result)})")
    print(flush=True)


def _summarise(
    claims: Sequence[Claim], results: dict[str, Result], missing: dict[str, str]
) -> None:
    from ..paper.render import verdict

    if len(claims) == 1:
        return
    rows = [
        [claim.id, claim.title, missing.get(claim.id) or verdict(results.get(claim.id))]
        for claim in claims
    ]
    print_table(["claim", "what it says", "verdict"], rows)

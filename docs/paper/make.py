"""Write docs/paper.md and its plots from the results in docs/paper/results; nothing is run.

::

    minikv paper --keep docs/paper/results      # every claim anew; --claim ID: this one
    minikv paper --machine NAME --keep docs/paper/results    # this machine, on figure 7's map
    python docs/paper/make.py                   # the page, its words and plots that are stale
    python docs/paper/make.py --check           # exit code 1 if one is stale
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from minikv.experiments import machines
from minikv.paper.claims import CLAIMS
from minikv.paper.claims.figure_7_tiers import CLAIM as MAP
from minikv.paper.claims.figure_7_tiers import with_machines
from minikv.paper.render import drawn_from, markdown, picture, picture_source
from minikv.paper.run import Result, keep, kept

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.with_suffix(".md")
RESULTS = FOLDER / "results"


def retold() -> dict[str, Result]:
    """Results whose verdict or reason is not what the claim makes of their figures, as it is."""
    found = {}
    for id, held in kept(RESULTS).items():
        if id not in CLAIMS:
            continue
        verdict, reason = CLAIMS[id].told(held.finding.figures)
        finding = replace(held.finding, verdict=verdict, reason=reason)
        if finding != held.finding:
            found[id] = replace(held, finding=finding)
    return found


def results_to_show() -> dict[str, Result]:
    """What is kept, with the machines that were measured on the map of figure 7."""
    results = kept(RESULTS)
    held = results.get(MAP.id)
    if held is not None:
        finding = with_machines(held.finding, machines.read(RESULTS))
        results[MAP.id] = replace(held, finding=finding)
    return results


def stale_plots(results: dict[str, Result]) -> dict[Path, Result]:
    """Plots that are missing, or drawn from other figures or by another function."""
    found = {}
    for id, result in results.items():
        path = FOLDER / f"{id}.png"
        if id not in CLAIMS or CLAIMS[id].plot is None:
            continue
        source = picture_source(CLAIMS[id], result.finding.figures)
        if not path.exists() or drawn_from(path.read_bytes()) != source:
            found[path] = result
    return found


def stale() -> list[str]:
    """What does not follow from the results: words, the page, plots; and files of no claim."""
    results = results_to_show()
    found = [f"{RESULTS / id}.json: its words do not follow from its figures" for id in retold()]
    found += [str(path) for path in stale_plots(results)]
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != markdown(CLAIMS, results):
        found.append(str(PAGE))
    files = [*RESULTS.glob("*.json"), *FOLDER.glob("*.png")]
    return found + [f"{path}: of no claim" for path in files if path.stem not in CLAIMS]


def main() -> None:
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(stale()) or None)
    for result in retold().values():
        print(f"wrote {keep(result, RESULTS)}")
    results = results_to_show()
    for path, result in stale_plots(results).items():
        path.write_bytes(picture(CLAIMS[result.id], result.finding.figures))
        print(f"wrote {path}")
    PAGE.write_text(markdown(CLAIMS, results), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()

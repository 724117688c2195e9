"""Figures of the paper beside those that came out here, as `minikv paper` keeps them."""

from __future__ import annotations

from pathlib import Path

from IPython.display import Image

from minikv.paper.claims import CLAIMS
from minikv.paper.render import picture, ran_on
from minikv.paper.run import kept

RESULTS = Path(__file__).parents[2] / "docs" / "paper" / "results"
SHOWN = ("figure-4", "figure-7")
"""What chapters 5 and 6 show; `release.py` gives students these results and no others."""


def paper_figure(name: str) -> Image | None:
    """The plot of a claim such as ``figure-4``, from what was kept; says what it was made on.

    Where the results are not at hand, as in an assignment that lies alone, it says so instead.

    Parameters
    ----------
    name : str
        One of `SHOWN`.
    """
    if not (RESULTS / f"{name}.json").exists():
        print(f"{name} is not drawn: {RESULTS} has no {name}.json; minikv paper makes it anew")
        return None
    result = kept(RESULTS)[name]
    print(f"Not run in this chapter: {ran_on(result)}.")
    return Image(picture(CLAIMS[name], result.finding.figures), width=900)

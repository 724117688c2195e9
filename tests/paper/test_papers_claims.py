"""The claims of the paper: each is found, is what it says, and gives what can be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from minikv.errors import FetchError, InputError
from minikv.paper import claims as folder
from minikv.paper.claim import Claim, Finding, Verdict
from minikv.paper.claims import CLAIMS, chosen, place
from minikv.paper.run import examine

# What the paper states or prints, by its own numbers, and the 20 turns of its section 4.
PAPER = {
    "algorithm-1",
    "definition-3.1",
    "equation-22",
    "equation-28",
    "experiment-20-turns",
    "figure-4",
    "figure-5",
    "figure-6",
    "figure-7",
    "figure-7-tiers",
    "figure-8",
    "figure-9",
    "proposition-3.1",
    "proposition-3.2",
    "section-3.2",
    "table-1",
    "table-2",
    "table-2-shapes",
    "table-3",
    "table-4-hellaswag",
    "table-4-perplexity",
}


def test_everything_that_the_paper_prints_has_a_claim():
    assert CLAIMS.keys() >= PAPER


@pytest.mark.parametrize("id", CLAIMS)
def test_a_claim_is_in_the_file_of_its_id_and_says_what_it_is(id):
    claim = CLAIMS[id]
    name = id.replace("-", "_").replace(".", "_")
    assert (Path(folder.__path__[0]) / f"{name}.py").exists()
    for text in (claim.where, claim.title, claim.says, claim.protocol):
        assert text.strip() == text != ""


def test_claims_stand_in_the_order_of_the_page():
    assert [*CLAIMS] == sorted(CLAIMS, key=place)


@pytest.mark.parametrize("id", ["table", "table-", "tables-2", "table-2.", "2", "table-2-A"])
def test_what_is_no_id_has_no_place(id):
    with pytest.raises(InputError, match="expected an id such as table-2"):
        place(id)


def claim_of(**changes) -> Claim:
    finding = changes.pop(
        "finding", Finding(Verdict.REPRODUCED, "so", ("a", "b"), ((1, 2),), {"n": [1]})
    )
    given = {"id": "table-9", "where": "Table 9", "title": "t", "says": "s", "protocol": "p"}

    def told(figures):
        return finding.verdict, finding.reason

    return Claim(run=lambda setting: finding, told=told, **(given | changes))


def test_figures_are_as_json_gives_them_back():
    finding = Finding(Verdict.REPRODUCED, "so", ("a",), (), {"n": (1, 2)})
    assert examine(claim_of(finding=finding), True).finding.figures == {"n": [1, 2]}


@pytest.mark.parametrize(
    ("finding", "exact", "told"),
    [
        (Finding(Verdict.REFUTED, "", ("a",), ((1, 2),), {}), (), "2 cells below 1 columns"),
        (Finding(Verdict.REFUTED, "", ("a",), (), {"x": float("nan")}), (), "not JSON compliant"),
        (Finding(Verdict.REFUTED, "", ("a",), (), {}), ("bits",), r"no figures \['bits'\]"),
    ],
)
def test_a_finding_that_cannot_be_kept_is_refused(finding, exact, told):
    with pytest.raises(ValueError, match=told):
        examine(claim_of(finding=finding, exact=exact), True)


def test_weights_that_are_not_there_are_asked_for_before_anything_runs():
    with pytest.raises(FetchError, match="no-such-model"):
        examine(claim_of(models=("no-such-model",)), True)


def test_a_model_that_is_given_takes_the_place_of_the_claims_own(tiny):
    result = examine(claim_of(models=("no-such-model",)), True, [str(tiny)])
    assert result.models == (str(tiny),)
    assert examine(claim_of(), True, [str(tiny)]).models == ()


def test_a_table_is_all_claims_about_it(monkeypatch):
    made = {id: claim_of(id=id) for id in ("table-4-a", "table-4-b", "table-40", "figure-4")}
    monkeypatch.setattr(folder, "CLAIMS", made)
    assert [claim.id for claim in chosen("table-4")] == ["table-4-a", "table-4-b"]

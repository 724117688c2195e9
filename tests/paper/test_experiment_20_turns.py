"""Bytes of a conversation, by the paper's formula and by our caches."""

from __future__ import annotations

import pytest

import minikv
from minikv.paper.claim import Setting
from minikv.paper.claims.equation_28 import held
from minikv.paper.claims.experiment_20_turns import (
    MEGABYTES,
    PAPER_DIRECT,
    PAPER_FULL,
    SHAPE,
    budget_of,
    counted,
    run,
)


@pytest.mark.parametrize("megabyte", MEGABYTES.values())
def test_no_budget_but_the_counted_one_gives_the_papers_megabytes(megabyte):
    told = counted(megabyte)
    tokens, budget = told["tokens"], told["budget"]
    assert held(SHAPE, tokens, budget, "embedding") <= PAPER_DIRECT * megabyte
    assert held(SHAPE, tokens, budget + 1, "embedding") > PAPER_DIRECT * megabyte
    assert round(told["budget_kept"]) == PAPER_DIRECT
    assert round(held(SHAPE, tokens, tokens, "embedding") / megabyte) == PAPER_FULL
    assert told["none_kept"] < PAPER_DIRECT / 10  # B = 0


@pytest.mark.parametrize("tokens", [1, 50, 740, 4000])
@pytest.mark.parametrize(("kv", "residual"), [(139264, 5120), (46080, 2304), (10, 3)])
def test_the_budget_is_the_largest_that_fits(tokens, kv, residual):
    wanted = PAPER_DIRECT / PAPER_FULL * tokens * kv
    budget = budget_of(wanted, kv, residual, tokens)

    def size(kept: int) -> int:
        return kept * kv + (tokens - kept) * residual

    assert size(budget) <= wanted < size(budget + 1)


def test_caches_count_what_the_formula_says(tiny):
    finding = run(Setting(True, (str(tiny),), minikv.load))
    assert finding.figures["as_formula"]
    assert len(finding.figures["turns"]) == 3 * 3
    held_last = {row["setting"]: row["bytes"] for row in finding.figures["turns"][2::3]}
    full, share, none = held_last.values()
    assert none < share < full

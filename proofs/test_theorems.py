"""P and N of each theorem: its check on random cases, and a control that must make a difference."""

from __future__ import annotations

import pytest
from hypothesis import find, given, settings
from strategies import cases

from minikv.verify import THEOREMS

IDS = list(THEOREMS)


@pytest.mark.parametrize("theorem", IDS)
@given(case=cases())
def test_holds_bit_for_bit(theorem, case):
    THEOREMS[theorem].check(case)


@pytest.mark.parametrize("theorem", IDS)
def test_fails_when_its_hypothesis_is_dropped(theorem):
    found = find(
        cases(min_tokens=4, scales=[1.0]),
        THEOREMS[theorem].control,
        settings=settings(settings.default, max_examples=500),
    )
    THEOREMS[theorem].check(found)  # with the hypothesis, the same case is fine

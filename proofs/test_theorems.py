"""P and N of each theorem: its check on random cases, and a control that must make a difference."""

from __future__ import annotations

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from strategies import cases

from minikv.verify import THEOREMS

IDS = list(THEOREMS)


@pytest.mark.parametrize("theorem", IDS)
@given(data=st.data())
def test_holds_bit_for_bit(theorem, data):
    THEOREMS[theorem].check(data.draw(cases(windowed=THEOREMS[theorem].windowed)))


@pytest.mark.parametrize("theorem", IDS)
def test_fails_when_its_hypothesis_is_dropped(theorem):
    found = find(
        cases(min_tokens=4, scales=[1.0], windowed=THEOREMS[theorem].windowed),
        THEOREMS[theorem].control,
        settings=settings(settings.default, max_examples=500),
    )
    THEOREMS[theorem].check(found)  # with the hypothesis, the same case is fine

"""P and N of each theorem: its check on random cases, and a control that must make a difference."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from strategies import cases

from minikv.config import FAMILIES
from minikv.verify import THEOREMS

IDS = list(THEOREMS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("theorem", IDS)
@settings(max_examples=settings.default.max_examples // len(FAMILIES))
@given(data=st.data())
def test_holds_bit_for_bit(theorem, family, data):
    drawn = cases(windowed=THEOREMS[theorem].windowed, families=(family,))
    THEOREMS[theorem].check(data.draw(drawn))


@pytest.mark.parametrize("theorem", IDS)
def test_fails_when_its_hypothesis_is_dropped(theorem):
    found = find(
        cases(min_tokens=4, scales=(1.0,), windowed=THEOREMS[theorem].windowed),
        THEOREMS[theorem].control,
        settings=settings(settings.default, max_examples=500, phases=[Phase.generate]),
    )
    THEOREMS[theorem].check(found)  # with the hypothesis, the same case is fine

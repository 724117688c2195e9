"""P and N of each theorem: its check on random cases, and a control that must make a difference."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from strategies import cases

from minikv.config import FAMILIES
from minikv.verify import THEOREMS
from minikv.verify.bits import differ
from minikv.verify.theorems.t02_markov import continued

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


def test_a_text_patched_at_one_layer_alone_does_not_continue_as_the_donor():
    """T2's logits are of the tokens so far: below, keys and values are the recipient's."""

    def differs(case) -> bool:
        last = len(case.model.layers) - 1
        return last > 0 and differ(continued(case, [last]), case.logits[-1:])

    generated = settings(settings.default, max_examples=500, phases=[Phase.generate])
    found = find(cases(min_tokens=4, scales=(1.0,)), differs, settings=generated)
    upto = range(len(found.model.layers))
    assert not differ(continued(found, upto), found.logits[-1:])

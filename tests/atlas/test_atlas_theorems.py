"""A1 to A6, the theorems of the atlas: they hold, their controls do not, and they notice faults."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from minikv.atlas.theorems import THEOREMS
from minikv.verify import random_case

sys.path.append(str(Path(__file__).parents[2] / "proofs"))
from mutants import small_blocks
from planted import Fault, planted
from strategies import cases

FAULTS = tomllib.loads((Path(__file__).parent / "theorem_faults.toml").read_text(encoding="utf-8"))
CASES = 4  # random cases, on one of which a fault is noticed


@pytest.fixture(scope="module", autouse=True)
def several_blocks():
    """Short texts take several blocks of queries."""
    with small_blocks():
        yield


@pytest.mark.parametrize("theorem", THEOREMS)
@settings(max_examples=settings.default.max_examples // 10)
@given(data=st.data())
def test_a_theorem_of_the_atlas_holds(theorem, data):
    THEOREMS[theorem].check(data.draw(cases()))


@pytest.mark.parametrize("theorem", THEOREMS)
def test_a_control_of_the_atlas_finds_a_difference(theorem):
    found = find(
        cases(min_tokens=4, scales=(1.0,)),
        THEOREMS[theorem].control,
        settings=settings(settings.default, max_examples=500, phases=[Phase.generate]),
    )
    THEOREMS[theorem].check(found)


@pytest.mark.parametrize("theorem", THEOREMS)
def test_a_control_of_the_atlas_finds_nothing_where_there_is_none(theorem):
    """Matrices of zeros: all keys, values and logits are alike."""
    found = [THEOREMS[theorem].control(random_case(seed, scale=0.0)) for seed in range(3)]
    assert found == [""] * 3


def refuted(theorem: str, seed: int) -> bool:
    """Whether a check fails on a case; a fault may show as any error."""
    try:
        THEOREMS[theorem].check(random_case(seed))
    except Exception:
        return True
    return False


def first_ones_fast() -> list:
    """The first fault of each theorem; the others are left to who asks for slow tests."""
    seen: set[str] = set()
    found = []
    for name, fault in FAULTS.items():
        marks = [pytest.mark.slow] if fault["theorem"] in seen else []
        found.append(pytest.param(name, marks=marks, id=f"{fault['theorem']}-{name}"))
        seen.add(fault["theorem"])
    return found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_atlas_changes_one_place_and_leaves_python(name):
    fault = dict(FAULTS[name])
    del fault["theorem"]
    compile(Fault(**fault).changed(), fault["file"], "exec")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", first_ones_fast())
def test_a_theorem_of_the_atlas_notices_the_fault(name):
    fault = dict(FAULTS[name])
    theorem = fault.pop("theorem")
    with planted(Fault(**fault)):
        assert any(refuted(theorem, seed) for seed in range(CASES))


@pytest.mark.slow
@pytest.mark.parametrize("theorem", THEOREMS)
def test_without_a_fault_a_theorem_of_the_atlas_holds_on_all_these_cases(theorem):
    """The control: it is the faults that are noticed."""
    assert not any(refuted(theorem, seed) for seed in range(CASES))


@pytest.mark.parametrize("theorem", THEOREMS)
def test_each_theorem_of_the_atlas_has_three_faults(theorem):
    assert sum(fault["theorem"] == theorem for fault in FAULTS.values()) >= 3


def test_a_theorem_of_the_atlas_is_complete():
    assert list(THEOREMS) == ["A1", "A2", "A3", "A4", "A5", "A6"]
    for theorem in THEOREMS.values():
        assert theorem.statement[0].isupper()
        assert not theorem.statement.endswith(".")
        assert "*Check.*" in theorem.section
        assert "*Control.*" in theorem.section
        assert theorem.dropped
        assert theorem.abstract

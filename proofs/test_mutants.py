"""proofs/mutants.toml: every fault can still be planted, and theorems notice it as recorded."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, TABLE, recorded, refutations, refuted
from planted import Fault, planted


@pytest.mark.parametrize("name", MUTANTS)
def test_the_fault_changes_one_place_and_leaves_python(name):
    compile(MUTANTS[name].changed(), MUTANTS[name].file, "exec")


def test_the_table_lists_these_faults_and_no_survivor():
    assert list(recorded()) == [*MUTANTS]
    assert "survived" not in TABLE.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "theorem", "seed"), refutations())
def test_the_theorem_notices_the_fault(name, theorem, seed):
    with planted(MUTANTS[name]):
        assert refuted(theorem, seed), "if cases are drawn in another way: mutants.py --write"


@pytest.mark.parametrize(("theorem", "seed"), sorted({pair[1:] for pair in refutations()}))
def test_without_the_fault_the_theorem_holds(theorem, seed):
    assert not refuted(theorem, seed)


def test_what_changes_nothing_cannot_be_planted():
    with (
        pytest.raises(ValueError, match="changes no function"),
        planted(Fault("projection.py", "# (T, D)\n    q =", "# (T,D)\n    q =")),
    ):
        pass
    with (
        pytest.raises(ValueError, match="stands 0 times"),
        planted(Fault("projection.py", "no such text", "")),
    ):
        pass

"""proofs/mutants.toml: every fault can still be planted, and the table is of these faults."""

from __future__ import annotations

import re

import pytest
from mutants import MUTANTS, ROOT, TABLE


@pytest.mark.parametrize("name", MUTANTS)
def test_the_fault_changes_one_place_and_leaves_python(name):
    file, old, new = (MUTANTS[name][key] for key in ("file", "old", "new"))
    source = (ROOT / "minikv" / file).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {file}"
    compile(source.replace(old, new), file, "exec")


def test_the_table_lists_these_faults_and_no_survivor():
    text = TABLE.read_text(encoding="utf-8")
    assert re.findall(r"^\| (\S+) \| `", text, re.MULTILINE) == [*MUTANTS]
    assert "survived" not in text

"""exact.c's rows of the portability table: what is missing is said, what differs is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import golden
import portability
import pytest
from portability import Row, faults

import compiled  # isort: skip  # portability has put its folder on the path
import compilers  # isort: skip


def test_a_compiler_that_is_missing_is_a_row_that_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    found = list(compiled.programs(tmp_path))
    assert not any(program.command for program in found)
    advice = [program.missing for program in found]
    assert "not on the PATH: apt-get install gcc" in advice
    assert "not on the PATH: apt-get install gcc-s390x-linux-gnu qemu-user-static" in advice
    assert "not on the PATH: apt-get install gcc-i686-linux-gnu qemu-user-static" in advice
    assert all(row.status == "unavailable" for row in portability.compiled_rows())


def test_a_program_that_says_nothing_has_no_fingerprint(monkeypatch):
    monkeypatch.setattr(compiled, "golden_lines", lambda: {"random: grouped": "model 1"})
    monkeypatch.setattr(compiled.check_vectors, "answers", lambda lines, command: [])
    assert compiled.golden_prints(["program"]) == {"random: grouped": ""}
    assert len(golden.differing({"random: grouped": ""})) == len(golden.known())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc: apt install gcc")
@pytest.mark.parametrize(
    ("sound", "changed"), [("", ""), ("grid_of(row, K, 32)", "grid_of(row, K, 31)")]
)
def test_c_has_the_golden_values_and_a_changed_constant_is_a_fault(sound, changed, tmp_path):
    source = tmp_path / "exact.c"
    text = compilers.SOURCE.read_text(encoding="utf-8")
    source.write_text(text.replace(sound, changed) if sound else text, encoding="utf-8")
    program = compilers.compiled("gcc", ["-O1"], Path(tmp_path), source)
    digests = compiled.golden_prints([str(program)])
    sum_of_all = golden.together(digests)
    rows = [
        Row("feeding", "1", float32="f", exact=golden.together(golden.known())),
        Row("feeding", "2", float32="g", exact=golden.together(golden.known())),
        Row("exact.c", "gcc", exact=sum_of_all, other=golden.differing(digests)),
    ]
    said = faults(rows)
    if not sound:
        assert said == []
    else:
        assert said[0].startswith("exact.c, gcc: not the golden fingerprint of random: ")
        assert "exact has 2 values, expected one" in said

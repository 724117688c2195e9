"""proofs/README.md: its table is not stale, its headings and numbers are those of the code."""

from __future__ import annotations

import re

import pytest
from make_table import PARTS, PROOFS, README, link, updated

from minikv.config import ModelConfig
from minikv.verify import THEOREMS

TEXT = README.read_text(encoding="utf-8")


def test_the_lecture_and_the_table_are_what_make_table_writes():
    assert updated(TEXT) == TEXT, "run  python proofs/make_table.py"


@pytest.mark.parametrize("part", PARTS)
def test_control_a_stale_part_is_noticed(part, monkeypatch):
    made = PARTS[part]()
    monkeypatch.setitem(PARTS, part, lambda: made.replace("T1", "T0", 1))
    assert updated(TEXT) != TEXT


def test_control_a_part_without_its_place_is_noticed():
    with pytest.raises(SystemExit, match="end of lecture"):
        updated(TEXT.replace("<!-- end of lecture -->", ""))


def test_control_a_stale_table_is_noticed():
    assert updated(TEXT.replace("#L", "#L1", 1)) == updated(TEXT) != TEXT.replace("#L", "#L1", 1)


def test_control_a_line_that_is_gone_is_noticed():
    with pytest.raises(SystemExit, match="no_such_test"):
        link("text", "test_theorems.py", "no_such_test")


def test_every_theorem_has_its_section_and_every_link_its_file():
    headings = re.findall(r"^### (T\d+) (.*)$", TEXT, re.MULTILINE)
    assert headings == [(theorem.id, theorem.name) for theorem in THEOREMS.values()]
    links = re.findall(r"\]\(([^)#]+)(?:#L(\d+))?\)", TEXT)
    assert len(links) > 50
    for path, line in links:
        lines = (PROOFS / path).read_text(encoding="utf-8").splitlines()
        assert int(line or 1) <= len(lines), path


def test_the_memory_that_it_quotes_is_what_the_configuration_gives():
    smollm = ModelConfig(49152, 576, 1536, 30, 9, 3, 64)
    kv, residual = smollm.kv_bytes_per_token(), smollm.residual_bytes_per_token()
    every = residual * smollm.num_hidden_layers
    assert f"K/V are {kv:,} bytes, a residual at *every* layer {every:,}," in TEXT
    assert f"saves, {residual:,} bytes, {kv // residual} times less" in TEXT
    assert kv % residual == 0

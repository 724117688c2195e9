"""docs/experiments.md: what its prose says of the tables is what the committed tables hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minikv.shapes import SHAPES, shape

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("experiments/*.txt")}
PAGE = " ".join((DOCS / "experiments.md").read_text(encoding="utf-8").split())


def rows(name: str) -> list[list[str]]:
    """The words of a table's lines, without command, heading and notes."""
    lines = TABLES[name].split("\n\n")[0].splitlines()[2:]
    return [line.split() for line in lines]


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"shape"}))
def test_a_table_of_what_was_run_names_its_machine_and_its_model(name):
    model = "gemma-3-270m" if "gemma" in name else "smollm2-135m-instruct"
    assert re.search(rf"^{model}, arithmetic \w+; AMD EPYC, .*NumPy", TABLES[name], re.MULTILINE)


def test_what_evicts_matches_as_many_tokens_as_the_page_says():
    lossy = [float(row[2]) for row in rows("compare") if not row[0].startswith("residual")]
    assert f"it is {100 * min(lossy):.0f} to {100 * max(lossy):.0f} %" in PAGE
    assert len(lossy) == 15


def test_on_gemma_each_policy_that_evicts_loses_bits_and_kv_direct_none():
    name = "compare-gemma-3-270m"
    found = {(row[0], row[1], row[7]) for row in rows(name)}
    assert {budget for _, budget, _ in found} == {"32", "128"}
    for policy, _, equal in found:
        assert (equal == "yes") == (policy == "residual:every")
    assert len({policy for policy, _, _ in found}) == 6
    assert "2 prompts of" in TABLES[name]
    assert "16 new ones" in TABLES[name]


def test_the_slope_of_kv_directs_peak_is_that_of_its_formula():
    config = shape("smollm2-135m")
    numbers = 2 * config.num_key_value_heads * config.head_dim
    slope = (2 * config.hidden_size + numbers) * 4
    full = numbers * config.num_hidden_layers * 4
    assert f"{slope:,} for SmolLM2 in float32, against {full:,} for a full cache" in PAGE
    peaks = {
        int(row[2]): int(row[5].replace(",", ""))
        for row in rows("memory")
        if row[0] == "residual:embedding@32"
    }
    first, last = sorted(peaks)[-2:]
    measured = (peaks[last] - peaks[first]) / (last - first)
    assert slope < measured < 1.2 * slope


def test_fourteen_other_shapes_ship():
    assert len(SHAPES) == 15
    assert "fourteen others ship" in PAGE


def test_recomputing_is_slower_in_every_row_and_the_last_lines_say_why():
    assert min(float(row[4]) for row in rows("latency")) > 1
    assert "recomputing is slower everywhere here" in TABLES["latency"]
    assert "could not win even if arithmetic cost nothing" in TABLES["latency"]

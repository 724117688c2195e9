"""The table of docs/machines.md: what is written into it, and what the committed one says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import golden
import machines
import numpy as np
import pytest
from golden_models import CONFIGS, random_case
from machines import BEGIN, END, merged, page, stored

import minikv
from minikv.model import Model

ROW = {
    "varied": "feeding",
    "environment": "one call",
    "status": "ran",
    "kernel": "Haswell",
    "threads": 1,
    "note": "NumPy 2.1",
    "float32": "f" * 64,
    "exact": "e" * 64,
    "other": [],
    "machine": "a computer",
    "date": "2026-01-01",
}
GOAL = 40  # environments, what the table set out to have
SPECIFICATION = Path(__file__).parents[1] / "docs" / "exact.md"


def test_every_row_has_the_golden_values():
    rows = stored()
    known = golden.together(golden.known())
    assert {row["exact"] for row in rows if row["status"] == "ran"} == {known}
    assert not any(row["other"] for row in rows)
    assert {row["status"] for row in rows} <= {"ran", "refused"}


def test_the_table_has_as_many_environments_as_it_set_out_to_have():
    ran = machines.environments(stored())
    assert len({tuple(row[key] for key in machines.IDENTITY) for row in ran}) == len(ran) > GOAL
    assert f"[More than {GOAL} environments](machines.md)" in SPECIFICATION.read_text("utf-8")
    assert len({row["float32"] for row in ran if row["float32"]}) > 1
    feeding = [row["machine"] for row in ran if row["varied"] == machines.FEEDING]
    assert len({*feeding}) == len(feeding)


def test_processors_that_are_not_ieees_say_so_in_their_rows():
    notes = {row["environment"]: (row["status"], row["note"]) for row in stored()}
    status, note = notes["i386 on this processor"]
    assert status == "refused"
    assert "(x87)" in note
    assert "exp of 3" in note.split("these differ: ")[1]
    refused = {row["exact"] for row in stored() if row["status"] == "refused"}
    assert refused == {golden.together(golden.known())}
    [armhf] = [note for name, note in notes.items() if name.startswith("armhf on QEMU")]
    assert armhf[0] == "ran"
    assert "makes float32 numbers below 2**-126 zero" in armhf[1]
    assert "subnormal float32 sums" in armhf[1].split("these differ: ")[1]
    others = ("arm64 on ", "ppc64el on ", "riscv64 on ", "s390x on ")
    sound = [note for name, (_, note) in notes.items() if name.startswith(others)]
    assert len(sound) == len(others)
    assert not any("differ" in note for note in sound)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_stream_of_a_golden_model_holds_a_subnormal_number(name):
    config, tensors, ids = random_case(name)
    model = Model(minikv.build(config, tensors, "exact"))
    streams = [x for key, x in model.run_with_cache(ids)[1].items() if "hook_resid" in key]
    assert len(streams) >= 2 * config.num_hidden_layers
    for stream in streams:
        size = np.abs(np.asarray(stream))
        assert not ((size > 0) & (size < 2.0**-126)).any()


def test_the_page_is_made_from_the_rows():
    text = machines.PAGE.read_text(encoding="utf-8")
    assert page(text, stored()) == text


def test_the_page_says_what_there_is_as_numbers():
    text = machines.PAGE.read_text(encoding="utf-8")
    assert len(golden.known()) == 9
    assert {len(digits) for digits in golden.known().values()} == {64}
    assert "each of nine small random models" in text


def test_every_date_is_one_and_every_machine_is_described():
    for row in stored():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])
        assert row["machine"].count(",") >= 2


def test_a_row_takes_the_place_of_the_same_environment_and_stays_for_other_machines():
    again = ROW | {"date": "2026-02-02"}
    elsewhere = ROW | {"machine": "another"}
    assert merged([ROW, elsewhere], [again]) == [again, elsewhere]
    assert merged([ROW], [ROW | {"environment": "chunks of 7"}])[0] == ROW


def test_a_page_gets_its_rows_and_keeps_its_text():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    made = page(text, [ROW, ROW | {"environment": "chunks | bits", "float32": ""}])
    assert made.startswith("before\n")
    assert made.endswith(f"{END}\nafter\n")
    assert "old" not in made
    assert "1 environments, one of them fed in 2 ways: exact has one value, float32 one" in made
    assert "* 1: a computer; 2026-01-01" in made
    assert "| feeding | chunks \\| bits | `eeeeeeee` | - | Haswell, 1 | NumPy 2.1 | 1 |" in made
    assert page(made, [ROW]).count("| feeding |") == 1


def test_a_value_that_differs_is_counted():
    made = page(f"{BEGIN}{END}", [ROW, ROW | {"environment": "2", "exact": "d" * 64}])
    assert "exact has 2 values" in made


def test_a_refused_row_is_named_so_and_does_not_count():
    made = page(f"{BEGIN}{END}", [ROW, ROW | {"environment": "x87", "status": "refused"}])
    assert "1 environments, " in made
    assert "| refused (`eeeeeeee`) |" in made


@pytest.mark.parametrize("status", ["failed", "unavailable", "same"])
def test_what_did_not_run_is_not_written(status, tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "ROWS", tmp_path / "rows.json")
    monkeypatch.setattr(machines, "PAGE", tmp_path / "page.md")
    machines.PAGE.write_text(f"{BEGIN}{END}", encoding="utf-8")
    machines.write([ROW, ROW | {"environment": "2", "status": status}])
    [row] = json.loads(machines.ROWS.read_text(encoding="utf-8"))
    assert row["environment"] == "one call"
    assert row["machine"] == machines.this_machine()

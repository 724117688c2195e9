"""The vectors of the policies: they are what the script makes, and say what they are for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "proofs"))
import policy_vectors

FILES = {path.stem: path for path in policy_vectors.FOLDER.glob("*.json")}
INPUTS = json.loads(FILES.pop("inputs").read_text(encoding="utf-8"))
POLICIES = policy_vectors.policies()


def vectors(name: str) -> list[dict]:
    return json.loads(FILES[name].read_text(encoding="utf-8"))["vectors"]


def test_the_files_are_what_the_script_makes():
    for path, text in policy_vectors.texts():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run the script"


def test_every_policy_of_core_and_atlas_has_a_file():
    assert FILES.keys() == POLICIES.keys()
    assert len(FILES) >= 15


@pytest.mark.parametrize("name", POLICIES)
def test_budgets_windows_and_grouped_heads_are_among_them(name):
    found = vectors(name)
    budgets = {vector["parameters"]["budget"] for vector in found}
    tokens = policy_vectors.TOKENS
    assert {0, 1, tokens - 1} <= budgets
    assert max(budgets) > tokens
    assert {vector["input"] for vector in found} == set(INPUTS)
    assert any(given["window"] for given in INPUTS.values())
    assert {len(given["q"][0][0]) // len(given["k"][0][0]) for given in INPUTS.values()} == {2}
    for vector in found:
        refused = vector["parameters"]["budget"] == 0
        assert ("refused" in vector) == refused, vector


@pytest.mark.parametrize("name", POLICIES)
def test_no_vector_hangs_on_a_last_place(name):
    """In single precision the same tokens are kept, so that another program can agree."""
    for vector in vectors(name)[1::4]:
        if "calls" in vector:
            given = INPUTS[vector["input"]]
            found = policy_vectors.played(POLICIES[name], vector["parameters"], given, "float32")
            assert found == vector["calls"], vector["parameters"]


def test_another_policy_does_not_agree():
    """The control: vectors tell policies apart."""
    for name in POLICIES:
        if name in ("window", "lookahead_kv"):  # told nothing of the future, it is a window
            continue
        assert any(
            policy_vectors.played(
                POLICIES["window"],
                {"budget": vector["parameters"]["budget"]},
                INPUTS[vector["input"]],
            )
            != vector["calls"]
            for vector in vectors(name)
            if "calls" in vector
        ), name

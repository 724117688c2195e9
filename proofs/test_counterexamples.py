"""Each counter-example refutes the theorem that it names, and its cure restores the claim."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from hypothesis import Phase, find, given, settings
from strategies import cases

from minikv.verify import THEOREMS

FOLDER = Path(__file__).parent / "counterexamples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def has_room(case) -> bool:
    """Whether the two rows of the injected prefix fit into the context."""
    return len(case.ids) + 2 <= case.config.max_position_embeddings


CASES = cases(max_layers=3, min_tokens=3, scales=(1.0,)).filter(has_room)  # a past to change


def load(name: str):
    return importlib.import_module(f"counterexamples.{name}")


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param((Phase.generate,), id="a case"),
        pytest.param((Phase.generate, Phase.shrink), id="a smallest case", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_the_theorem_it_names_is_refuted(name, phases):
    example = load(name)
    effort = settings(settings.default, max_examples=300, phases=phases)
    found = find(CASES, example.refuted, settings=effort)
    print(f"{example.THEOREM} is refuted by {name}, for example on\n    {found!r}")
    THEOREMS[example.THEOREM].check(found)  # without the change, the same case is fine


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(load(name), "cured")])
@given(case=CASES)
@settings(max_examples=15)
def test_the_cure_restores_the_claim(name, case):
    assert load(name).cured(case)


def test_the_table_names_every_file_and_its_theorem():
    rows = re.findall(
        r"\| `(\w+)\.py` \|.*?\| (T\d+) \| (.*?) \|", (FOLDER / "README.md").read_text()
    )
    assert [(name, theorem) for name, theorem, _ in sorted(rows)] == [
        (name, load(name).THEOREM) for name in NAMES
    ]
    lecture = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert "[`counterexamples/`](counterexamples/README.md) has ten that" in lecture
    assert len(rows) == 10
    for name, _, cure in rows:
        assert cure.startswith("none") != hasattr(load(name), "cured"), name

"""How large `minikv conform` may be: the rule and how it is run, its questions, and what is around.

A statement counts as in ``python -m tests.statements``: packing lines does not help.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.statements import statements

FOLDER = Path(__file__).parents[2] / "minikv" / "conform"
LIMITS = {
    ".": 700,  # the rule: what a target is, how two ways are compared, what a verdict is
    "axes": 700,
    "diagnosis": 150,
    "kinds": 360,
    "report": 120,
    "targets": 420,
}
LONGEST_AXIS = 65


def sizes(folder: Path) -> dict[str, int]:
    """Statements of each module right in a folder."""
    return {path.name: statements(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")}


def too_large(folder: Path, limits: dict[str, int]) -> list[str]:
    """Parts above their limits, and folders that have none."""
    parts = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    found = [f"{part} has no limit" for part in sorted(parts - limits.keys())]
    for part, limit in limits.items():
        size = sum(sizes(folder / part).values())
        if size > limit:
            found.append(f"{part} has {size} statements, the limit is {limit}")
    return found


def test_each_part_is_within_its_limit():
    assert too_large(FOLDER, LIMITS) == []


def test_no_axis_is_longer_than_what_is_read_at_a_glance():
    assert {
        name: size for name, size in sizes(FOLDER / "axes").items() if size > LONGEST_AXIS
    } == {}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("a.py", ". has 2 statements, the limit is 1"),
        ("axes/a.py", "axes has 2 statements, the limit is 1"),
        ("more/a.py", "more has no limit"),
    ],
)
def test_a_part_that_grew_and_a_folder_without_a_limit_are_noticed(tmp_path, file, words):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("a = 1\nb = 2\n")
    assert too_large(tmp_path, {".": 1, "axes": 1}) == [words]

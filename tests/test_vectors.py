"""The known answers of exact arithmetic are the library's; the command that checks them counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "proofs" / "independent"))
import check_vectors
import make_vectors
import python_answers

ROOT = Path(__file__).parents[1]
VECTORS = check_vectors.vectors()
LARGEST = 300_000  # bytes of all vectors: a repository is no place for more


def test_the_library_has_every_known_answer():
    assert check_vectors.compare([])[1] == []


def test_the_vectors_are_what_the_script_makes():
    for path, text in make_vectors.texts():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_every_operation_has_a_vector_and_the_specification_names_it():
    text = (ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    operations = {vector.operation for vector in VECTORS}
    assert operations == {*python_answers.OPERATIONS}
    for operation in operations:
        assert f"`{operation}`" in text


def test_the_specification_counts_the_vectors():
    text = (ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    assert f"the {len(VECTORS)} known answers" in text


def test_the_vectors_are_small():
    assert sum(path.stat().st_size for path in check_vectors.FOLDER.glob("*.json")) < LARGEST


@pytest.mark.parametrize("index", range(len(VECTORS)))
def test_a_wrong_last_bit_is_noticed(index, monkeypatch):
    given = [vector.expected for vector in VECTORS]
    right = given[index]
    given[index] = right[:-1] + f"{int(right[-1], 16) ^ 1:x}"
    monkeypatch.setattr(check_vectors, "answers", lambda lines, command: given)
    counts, wrong = check_vectors.compare(["program"])
    assert len(wrong) == 1
    assert wrong[0].startswith(VECTORS[index].operation)
    assert sum(asked - found for found, asked in counts.values()) == 1


def program(folder: Path, body: str) -> list[str]:
    path = folder / "program.py"
    path.write_text(f"import sys\n{body}\n", encoding="utf-8")
    return [sys.executable, str(path)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "0 numbers, expected"),
        ("sys.exit('no such operation')", "0 numbers, expected"),
        ("print('\\n' * 1000)", "answers, expected"),
        ("for line in sys.stdin: print('00000000')", "expected"),
    ],
)
def test_a_program_without_the_answers_is_told_so(body, said, tmp_path):
    line = [sys.executable, check_vectors.__file__, *program(tmp_path, body)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stdout
    assert f"0 of {len(VECTORS)}" in done.stdout


def test_a_program_that_answers_from_the_files_passes(tmp_path):
    answers = [vector.expected for vector in VECTORS]
    body = f"import json\nfor line in json.loads({json.dumps(answers)!r}): print(line)"
    line = [sys.executable, check_vectors.__file__, *program(tmp_path, body)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"{len(VECTORS)} of {len(VECTORS)}" in done.stdout

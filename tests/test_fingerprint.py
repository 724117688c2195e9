"""The fingerprint: golden values, what may change it, and what may not.

``python tests/test_fingerprint.py`` writes ``tests/golden/fingerprints.json`` anew, and says what
changed: only a change to the specification of the exact arithmetic may do that. It needs the real
weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden_models import CONFIGS, random_case

import minikv
from minikv.errors import InputError
from minikv.fingerprint import PROMPT, fingerprint
from minikv.model import Model
from minikv.tokenizer import Tokenizer
from minikv.weights import load_tensors, weights_hash
from minikv.weights.fetch import DEFAULT, resolve

HERE = Path(__file__).parent
TINY = HERE / "fixtures" / "tiny"
GEMMA = "gemma-3-270m"
GOLDEN = HERE / "golden" / "fingerprints.json"
PROMPTS = {  # what the real model reads
    "prose": PROMPT,
    "code": "def gcd(a: int, b: int) -> int:\n    while b:\n        a, b = b, a % b\n    return a\n"
    "\n\nassert gcd(12, 18) == 6  # größter gemeinsamer Teiler: 最大公約数\n" * 3,
}


def case(name: str) -> tuple[minikv.ModelConfig, dict[str, np.ndarray], list[int]]:
    """Configuration, tensors and text of a golden value, by its name."""
    kind, _, which = name.partition(": ")
    if kind == "random":
        return random_case(which)
    folder = TINY if kind == "tiny" else resolve(kind)
    config = minikv.ModelConfig.from_file(folder / "config.json")
    text = PROMPT if kind == "tiny" else PROMPTS[which]
    return config, load_tensors(folder, config), Tokenizer.from_folder(folder).encode(text)


def measure(name: str) -> dict[str, object]:
    config, tensors, ids = case(name)
    model = Model(minikv.build(config, tensors, "exact"))
    return {
        "ids": list(ids),
        "weights": weights_hash(tensors),
        "fingerprint": fingerprint(model, ids),
    }


NAMES = ["tiny", *(f"random: {name}" for name in CONFIGS)]
REAL_NAMES = [f"{model}: {name}" for model in (DEFAULT, GEMMA) for name in PROMPTS]


@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.weights) for name in REAL_NAMES)]
)
def test_fingerprint_is_the_golden_one(name, request):
    if name.startswith(GEMMA):
        request.getfixturevalue("gemma")
    assert measure(name) == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


def test_every_golden_value_is_compared():
    assert sorted(json.loads(GOLDEN.read_text(encoding="utf-8"))) == sorted(NAMES + REAL_NAMES)


@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 1000, (5, 1, 8)])
def test_chunks_do_not_change_the_exact_fingerprint(chunks):
    model = minikv.load(TINY, "exact")
    ids = list(range(3, 17))
    assert fingerprint(model, ids, chunks) == fingerprint(model, ids)


def test_chunks_change_the_float32_fingerprint():
    model = minikv.load(TINY, "float32")
    ids = list(range(3, 17))
    assert len({fingerprint(model, ids, chunks) for chunks in (None, 1, 2, 3, 7)}) > 1


def test_the_text_changes_the_fingerprint():
    model = minikv.load(TINY, "exact")
    texts = [[3, 4, 5], [3, 4, 6], [3, 5, 4], [3, 4], [3, 4, 5, 5]]
    assert len({fingerprint(model, ids) for ids in texts}) == len(texts)


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        (0, "0 tokens"),
        (-1, "-1 tokens"),
        ((2, 2), "do not add up"),
        ((4, -1), "do not add up"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(chunks, said):
    with pytest.raises(InputError, match=said):
        fingerprint(minikv.load(TINY, "exact"), [3, 4, 5], chunks)


# A damaged bit. Exact rounds each row of a weight matrix to multiples of a step, its grid: 2**-20
# of the power of two below the row's largest weight. In that weight a float32 has 23 bits behind
# the leading one, so its bit 3 is one step, and bits 0 to 2 are fractions of a step.

MATRICES = [
    name
    for name in load_tensors(TINY, minikv.ModelConfig.from_file(TINY / "config.json"))
    if not name.endswith("norm.weight")
]
TEXT = list(range(40, 80))


def flip(tensors, name, at, bit):
    """A copy of the tensors with one bit of one weight flipped."""
    damaged = np.array(tensors[name])
    damaged.view(np.uint32)[at] ^= np.uint32(1 << bit)
    return {**tensors, name: damaged}


def largest_of_a_row(matrix, skip_ties=False):
    """Index of the largest weight of a row; of a row where flipping bit 0 rounds to the same."""
    for row in range(len(matrix)):
        at = row, int(np.argmax(np.abs(matrix[row])))
        # In eighths of a step, a fraction of 4 is a tie and 5 rounds up: the one pair on two sides.
        if not skip_ties or int(matrix.view(np.uint32)[at]) & 0b110 != 0b100:
            return at
    raise AssertionError("every row's largest weight is a tie")


@pytest.fixture(scope="module")
def toy():
    config = minikv.ModelConfig.from_file(TINY / "config.json")
    tensors = load_tensors(TINY, config)

    def look(tensors):
        model = Model(minikv.build(config, tensors, "exact"))
        return weights_hash(tensors), fingerprint(model, TEXT)

    return tensors, look, look(tensors)


@pytest.mark.parametrize("name", MATRICES)
def test_a_flipped_bit_on_the_grid_changes_both_hashes(name, toy):
    tensors, look, sound = toy
    weights, answer = look(flip(tensors, name, largest_of_a_row(tensors[name]), bit=3))
    assert weights != sound[0]
    assert answer != sound[1]


@pytest.mark.parametrize("name", [name for name in MATRICES if "embed" not in name])
def test_a_flipped_bit_below_the_grid_changes_the_weights_hash_alone(name, toy):
    tensors, look, sound = toy
    at = largest_of_a_row(tensors[name], skip_ties=True)
    weights, answer = look(flip(tensors, name, at, bit=0))
    assert weights != sound[0]
    assert answer == sound[1]


def test_the_embedding_as_input_has_no_grid(toy):
    # The output matrix is the embedding too, and rounds it; as the stream's start it counts whole.
    tensors, look, sound = toy
    name = "model.embed_tokens.weight"
    embedding = tensors[name]
    row, column = largest_of_a_row(embedding[TEXT], skip_ties=True)
    assert look(flip(tensors, name, (TEXT[row], column), bit=0))[1] != sound[1]
    assert TEXT[-1] < 100
    row, column = largest_of_a_row(embedding[100:], skip_ties=True)  # of a token not in the text
    assert look(flip(tensors, name, (100 + row, column), bit=0))[1] == sound[1]


@pytest.mark.parametrize("bit", [22, 23, 31])
def test_a_flipped_bit_of_a_norm_weight_changes_both_hashes(bit, toy):
    tensors, look, sound = toy
    for name in ("model.layers.0.input_layernorm.weight", "model.norm.weight"):
        weights, answer = look(flip(tensors, name, (5,), bit))
        assert weights != sound[0]
        assert answer != sound[1]


def write_golden() -> None:
    before = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    after = {name: measure(name) for name in NAMES + REAL_NAMES}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in after.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    for name, value in after.items():
        print("same   " if before.get(name) == value else "CHANGED", name)


if __name__ == "__main__":
    write_golden()

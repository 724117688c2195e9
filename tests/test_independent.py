"""A second implementation, in C, has the library's bits; the known answers notice what differs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from test_fingerprint import CONFIGS, case

import minikv
from minikv.fingerprint import fingerprint
from minikv.weights import save_folder
from minikv.weights.fetch import DEFAULT, resolve

sys.path.insert(0, str(Path(__file__).parents[1] / "proofs" / "independent"))
import check_vectors
import compilers
import make_vectors

SOURCE = compilers.SOURCE.read_text(encoding="utf-8")

# What stands in exact.c, and what each mutant has in its place: one constant.
MUTANTS = {
    "linear's grid": ("grid_of(row, K, 32)", "grid_of(row, K, 31)"),
    "a weight's grid": ("largest(row, width)) * 0x1p-20", "largest(row, width)) * 0x1p-21"),
    "the grid of squares": ("power_below(top * top) * 0x1p-32", "power_below(top * top) * 0x1p-31"),
    "settle's grid": ("largest_float(row, d)) * 0x1p-23", "largest_float(row, d)) * 0x1p-22"),
    "a query's grid": ("grid_of(query, d, 29)", "grid_of(query, d, 30)"),
    "a pattern's grid": ("grid_of(pattern, S, 29)", "grid_of(pattern, S, 30)"),
    "the denominator's bits": ("bits < 40 ? bits : 40", "bits < 39 ? bits : 39"),
    "a short context's bits": ("int bits = 53;", "int bits = 52;"),
    "the margin of a grid": ("ldexp(0x1.008p+0, -bits)", "ldexp(0x1.004p+0, -bits)"),
    "the fine grid of a total": ("power * 0x1p-61", "power * 0x1p-53"),
    "round_to's shift": ("grid * 0x1.8p+52", "grid * 0x1.8p+51"),
    "the smallest value": ("fmax(0x1p-149, ", "fmax(0.0, "),
    "no + 0": ("(float)sum + 0.0f", "(float)sum - 0.0f"),
    "Veltkamp's constant": ("0x1.0000002p+27", "0x1.0000004p+26"),
    "the lowest argument of exp": ("f = -190976.0;", "f = -190720.0;"),
    "the highest argument of exp": ("f = 0x1.62e4395810625p+17", "f = 0x1.62e4395810625p+16"),
    "exp's first coefficient": ("0x1.ffffffffffeabp-9", "0x1.ffffffffffeacp-9"),
    "Taylor's coefficient of exp": ("0x1.55555aaaaaaaap-27", "0x1.5555555555555p-27"),
    "a coefficient of the sine": ("-0x1.a01a01a01a01ap-13", "-0x1.a01a01a01a01bp-13"),
    "a coefficient of the cosine": ("-0x1.6c16c16c16c17p-10", "-0x1.6c16c16c16c18p-10"),
    "the second part of pi / 2": ("0x1.0b4611a600000p-34", "0x1.0b4611a640000p-34"),
    "the third part of pi / 2": ("0x1.3198a2e000000p-69", "0x1.3198a2e400000p-69"),
    "GELU's cubic": ("0x1.6e4e26d4801f7p-5", "0x1.6e4e26p-5"),
    "GELU's root": ("0x1.9884533d43651p+0", "0x1.988454p+0"),
    "the turns of Llama 3": ("/ 0x1.921fb54442d18p+2", "/ 0x1.91eb851eb851fp+2"),
    "the terms of a logarithm": ("k < 200; k += 2", "k < 20; k += 2"),
    "the terms of exp in fixed point": ("k < 80; k++", "k < 20; k++"),
}


def missing(what: str) -> None:
    """Skip; on the machine that must have it, fail."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def compiler() -> str:
    if os.name == "nt":
        pytest.skip("the C has been compiled on Unix alone")
    for name in compilers.COMPILERS:
        if shutil.which(name):
            return name
    missing(f"none of {', '.join(compilers.COMPILERS)} on the PATH: apt install gcc")
    raise AssertionError


@pytest.fixture(scope="session")
def program(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compilers.compiled(compiler, ["-O2"], tmp_path_factory.mktemp("exact"))


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess:
    line = [str(program), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_the_tiny_model_has_its_golden_fingerprint_from_c(program):
    ids, known = compilers.golden()
    assert compilers.fingerprint(program, ids) == known


def test_another_text_has_another_fingerprint_from_c(program):
    ids, known = compilers.golden()
    assert compilers.fingerprint(program, ids[::-1]) != known


def test_there_are_as_many_known_answers_as_the_pages_say():
    count = len(check_vectors.vectors())
    for page in ("machines.md", "exact.md"):
        text = (compilers.ROOT / "docs" / page).read_text(encoding="utf-8")
        assert {int(found) for found in re.findall(r"(\d+) known answers", text)} == {count}


def test_c_answers_every_vector(program):
    counts, wrong = check_vectors.compare([str(program)])
    assert wrong == []
    assert len(counts) == 18


def from_text(compiler: str, folder: Path, flags: Sequence[str]) -> Path:
    """The program that was written from the page alone, which has no call against fusing."""
    source = compilers.SOURCE.with_name("from_text.c")
    command = [compiler, "-O2", *flags, "-o", str(folder / "from_text"), str(source)]
    subprocess.run(command, check=True)
    return folder / "from_text"


@pytest.mark.slow
def test_a_program_written_from_the_page_alone_answers_every_vector(compiler, tmp_path):
    own = from_text(compiler, tmp_path, ["-ffp-contract=off"])
    counts, wrong = check_vectors.compare([str(own)])
    assert wrong == []
    assert len(counts) == 18


@pytest.mark.slow
@pytest.mark.skipif(not compilers.fused(), reason="no fused multiply-add here")
def test_products_that_are_fused_into_sums_are_noticed_in_it(compiler, tmp_path):
    own = from_text(compiler, tmp_path, compilers.fused())
    _, wrong = check_vectors.compare([str(own)])
    assert wrong


@pytest.mark.parametrize("flags", [("-O0",), ("-O3", *compilers.fused())])
def test_optimising_and_fusing_change_no_answer(compiler, flags, tmp_path):
    program = compilers.compiled(compiler, flags, tmp_path)
    assert check_vectors.compare([str(program)])[1] == []


def test_without_the_calls_a_fused_multiply_add_is_noticed(compiler, tmp_path):
    if not compilers.fused():
        pytest.skip("no fused multiply-add here, or no flag for it")
    flags = ("-O2", *compilers.fused(), compilers.BARE)
    program = compilers.compiled(compiler, flags, tmp_path)
    wrong = check_vectors.compare([str(program)])[1]
    changed = {line.split()[0] for line in wrong}
    assert "rope" in changed
    if "-mfma" in flags:  # of x86-64 the specification says what changes
        assert changed >= {"sin", "cos"}
        assert compiler != "gcc" or changed >= {"exp", "exp_table"}
    ids, known = compilers.golden()
    assert compilers.fingerprint(program, ids) == known  # float32 hides most last places


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_constant_is_noticed(name, compiler, tmp_path):
    sound, changed = MUTANTS[name]
    assert SOURCE.count(sound) == 1
    source = tmp_path / "mutant.c"
    source.write_text(SOURCE.replace(sound, changed), encoding="utf-8")
    program = compilers.compiled(compiler, ["-O0"], tmp_path, source)
    assert check_vectors.compare([str(program)])[1]


def test_the_spec_and_the_c_have_the_same_constants():
    # Both ways, so that neither has one that the other lacks; powers of two are not compared.
    text = (compilers.ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    long_constant = re.compile(r"0x1\.[0-9a-f]{5,}p[+-]\d+")
    assert {*long_constant.findall(text)} == {*long_constant.findall(SOURCE)}


def test_the_spec_counts_the_lines_of_the_c():
    text = (compilers.ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    told = re.search(r"Of `exact.c`'s (\d+) lines (\d+) are the arithmetic and the decoder", text)
    assert told is not None
    parts = re.split(r"^(/\* ---- .*)$", SOURCE, flags=re.MULTILINE)
    lines = {title: body.count("\n") for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    specified = [count for title, count in lines.items() if re.match(r"/\* ---- \[", title)]
    assert len(specified) == 4  # sections 3, 4, 5 and 6
    assert (int(told[1]), int(told[2])) == (SOURCE.count("\n"), sum(specified))
    for other in ("288 bits", "SHA-256", "model folder's files", "Vectors"):
        assert any(other in title for title in lines)


def save(path: Path, tensors: Mapping[str, np.ndarray], dtype: str) -> None:
    """Write a safetensors file of a type that NumPy may lack."""
    header = {}
    data = b""
    for name, tensor in tensors.items():
        start = len(data)
        data += tensor.tobytes()
        shape = list(tensor.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def upper_half(tensor: np.ndarray) -> np.ndarray:
    """Binary32 cut off to bfloat16, as whole numbers."""
    return (tensor.view(np.uint32) >> 16).astype("<u2")


TYPES = {
    "F32": lambda tensor: tensor.astype("<f4"),
    "F16": lambda tensor: tensor.astype("<f2"),
    "BF16": upper_half,
}


@pytest.mark.parametrize("dtype", TYPES)
def test_c_and_python_agree_on_files_of_every_type(dtype, program, tmp_path):
    config = minikv.tiny_config(rope_theta=12345.678, tie_word_embeddings=False)
    tensors = minikv.random_tensors(config, seed=7)
    folder = save_folder(tmp_path / "model", config, tensors)
    stored = {name: TYPES[dtype](tensor) for name, tensor in tensors.items()}
    save(folder / "model.safetensors", stored, dtype)
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    known = fingerprint(minikv.load(folder, "exact"), ids)
    assert compilers.fingerprint(program, ids, folder) == known


def known_fingerprint(name: str) -> str:
    return json.loads(compilers.GOLDEN.read_text(encoding="utf-8"))[name]["fingerprint"]


LLAMAS = [name for name, config in CONFIGS.items() if config.model_type == "llama"]


@pytest.mark.parametrize("name", LLAMAS)
def test_every_golden_llama_has_its_fingerprint_from_c(name, program, tmp_path):
    config, tensors, ids = case(f"random: {name}")
    folder = save_folder(tmp_path / "model", config, tensors)
    assert compilers.fingerprint(program, ids, folder) == known_fingerprint(f"random: {name}")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in LLAMAS])
def test_every_other_golden_family_has_its_fingerprint_from_c(name, program):
    config, tensors, ids = case(f"random: {name}")
    given = make_vectors.model_given(config, tensors, ids)
    line = " ".join(["model", *(value for _, value in given)])
    (answer,) = check_vectors.answers([line], [str(program)])
    logits = np.array([int(word, 16) for word in answer.split()], dtype="<u4")
    digest = hashlib.sha256(logits.tobytes()).hexdigest()
    assert digest == known_fingerprint(f"random: {name}")


@pytest.mark.weights
def test_real_weights_have_their_fingerprint_from_c(program):
    name = f"{DEFAULT}: prose"
    ids = json.loads(compilers.GOLDEN.read_text(encoding="utf-8"))[name]["ids"]
    assert compilers.fingerprint(program, ids, resolve(DEFAULT)) == known_fingerprint(name)


TINY_FILES = (compilers.TINY / "config.json", compilers.TINY / "model.safetensors")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (TINY_FILES, "give config.json, model.safetensors and token ids"),
        ((*TINY_FILES, 320), "outside the vocabulary"),
        ((*TINY_FILES, -1), "outside the vocabulary"),
        ((*TINY_FILES, "3x"), "not a token id: 3x"),
        ((*TINY_FILES, *[3] * 257), "more tokens than max_position_embeddings"),
        (("nowhere", TINY_FILES[1], 3), "cannot read nowhere"),
        ((TINY_FILES[0], TINY_FILES[0], 3), "no safetensors file"),
    ],
)
def test_what_c_cannot_read_is_one_line(program, arguments: Sequence[object], said):
    done = run(program, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""

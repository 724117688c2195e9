"""The decoder extracted from Rocq has the Python's bits; what differs, or is missing, is named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "proofs" / "extracted"))
import decoder_calm
import decoder_cases as models
import decoder_mutants as mutants
import decoder_nightly as nightly
import make_micro
import run

from minikv import Model, build
from minikv.arithmetic import elementary
from minikv.cli import main
from minikv.config import FAMILIES

ROOT = Path(__file__).parents[1]
EXTRACTED = ROOT / "proofs" / "extracted"
CALM = (ROOT / "proofs" / "rocq" / "Calm.v").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def executable(request: pytest.FixtureRequest) -> Path:
    for name, package in run.PROGRAMS.items():
        if shutil.which(name) is None:
            missing = f"no {name} on the PATH: apt install {package}"
            if os.environ.get("CI") or request.config.getoption("--require-weights"):
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)
    return run.program()


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    line = [sys.executable, EXTRACTED / "run.py", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(line, capture_output=True, text=True, env=env)


def dumped(case: models.Case, folder: Path) -> Path:
    path = folder / "dump"
    run.dump(path, case.config, case.tensors, case.ids, case.model.arithmetic.denominator_bits)
    return path


@pytest.mark.usefixtures("executable")
def test_the_tiny_model_has_one_fingerprint_from_rocq_and_from_python() -> None:
    done = command()
    assert done.returncode == 0, done.stderr
    rocq, python = (
        line.split()[1]
        for line in done.stdout.splitlines()
        if line.split()[0] in ("Rocq", "Python")
    )
    assert rocq == python
    assert len(rocq) == 64
    assert done.stdout.count(" 0 differ,") == 11


@pytest.mark.slow
def test_twenty_random_models_of_all_families_have_the_same_bits(executable: Path) -> None:
    families = set()
    for seed in range(20):
        case = models.random_case(seed)
        families.add(case.config.model_type)
        for outcome in run.check(executable, case):
            assert outcome.compared
            assert not outcome.differ, f"{case.name}, {outcome.mode}: {outcome.first}"
    assert families == {*FAMILIES}


@pytest.mark.parametrize("seed", mutants.SPECIAL)
def test_zeros_of_both_signs_subnormals_and_great_numbers_have_the_same_bits(
    executable: Path, seed: int
) -> None:
    case = models.random_case(seed, special=True)
    for outcome in run.check(executable, case):
        assert not outcome.differ, f"{outcome.mode}: {outcome.first}"


def test_activations_and_elementary_functions_have_the_same_bits(
    executable: Path, tmp_path: Path
) -> None:
    wanted = ["trace"]
    for name, values in mutants.arguments().items():
        path = tmp_path / name
        values[::10].astype("<f8").tofile(path)
        wanted.append(f"{name}={path}")
    case = models.random_case(4)
    for outcome in run.run(executable, case, wanted, dumped(case, tmp_path)):
        assert outcome.compared > 1000
        assert not outcome.differ, outcome.first


def test_the_table_of_exp_is_as_the_proofs_ask() -> None:
    table = elementary.exp_table()
    assert decoder_calm.good_table(table)
    bound = decoder_calm.BELOW_ONE
    assert table[746 * 256 - 1] > bound - 2.0**-20, "control: hardly more would be too much"
    for place, wrong in (
        (746 * 256 - 1, bound + 2.0**-20),
        (746 * 256, 1.5),
        (-1, np.inf),
        (5, -1.0),
    ):
        spoiled = table.copy()
        spoiled[place] = wrong
        assert not decoder_calm.good_table(spoiled), place


def test_calm_has_the_bounds_of_the_proof() -> None:
    stated = dict(re.findall(r"(\w+) : float := (\S+)\.\n", CALM))
    for name, bound in {
        "weight_bound": decoder_calm.WEIGHT,
        "norm_bound": decoder_calm.NORM,
        "bias_bound": decoder_calm.BIAS,
        "embedding_bound": decoder_calm.EMBEDDING,
        "widest": decoder_calm.WIDEST,
        "deepest": decoder_calm.DEEPEST,
        "below_one": decoder_calm.BELOW_ONE,
    }.items():
        assert float.fromhex(stated[name]) == bound, name


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("model.layers.0.mlp.up_proj.weight", 2.0**10),
        ("model.layers.0.input_layernorm.weight", 2.0**16),
        ("model.embed_tokens.weight", 2.0**90),
    ],
)
def test_a_model_with_great_weights_is_not_calm_for_rocq_and_for_python(
    executable: Path, tmp_path: Path, name: str, factor: float
) -> None:
    case = models.random_case(0)
    assert decoder_calm.calm(case)
    tensors = dict(case.tensors) | {name: case.tensors[name] * np.float32(factor)}
    great = models.Case(
        case.name, case.config, tensors, case.ids, Model(build(case.config, tensors, "exact"))
    )
    assert not decoder_calm.calm(great)
    (outcome,) = run.run(executable, great, ["calm"], dumped(great, tmp_path))
    assert not outcome.differ


def test_of_the_twenty_models_some_forget_and_some_refuse_to_go_back() -> None:
    forgetting, refusing = models.random_case(0), models.random_case(3)
    for case, refused in ((forgetting, False), (refusing, True)):
        mode = next(mode for mode in run.modes(case) if mode.startswith("residual=2:"))
        cache = run.cache_of(case, "residual", mode.removeprefix("residual="))
        logits = run.python_logits(case, cache, mode.split(":")[-1])
        assert np.isinf(logits).all() == refused
        assert cache.nbytes < case.model.new_cache(
            "residual", budget=2, checkpoints="every"
        ).nbytes + (len(case.ids) * case.config.num_hidden_layers * case.config.hidden_size * 4)


@pytest.mark.slow
@pytest.mark.night
def test_control_a_cache_that_forgets_a_row_too_many_is_noticed(
    executable: Path, tmp_path: Path
) -> None:
    theories, built = tmp_path / "theories", tmp_path / "built"
    theories.mkdir()
    built.mkdir()
    for path in run.THEORIES:
        shutil.copy(path, theories)
    caches = theories / "Caches.v"
    text = caches.read_text(encoding="utf-8")
    assert text.count("else Some (w - 1)") == 1
    caches.write_text(text.replace("else Some (w - 1)", "else Some (w - 2)"), encoding="utf-8")
    run.compile_theories(theories, [path.name for path in run.THEORIES])
    case = models.random_case(11)
    mode = "residual=2:2:rows:1111:16,16,16"
    for program, noticed in ((executable, False), (run.build(built, theories), True)):
        (outcome,) = run.run(program, case, [mode], dumped(case, tmp_path))
        assert bool(outcome.differ) == noticed


def test_the_micro_model_that_rocq_computes_is_what_python_computes() -> None:
    assert make_micro.MICRO.read_text(encoding="utf-8") == make_micro.text()


def test_control_a_changed_weight_is_named_by_activation_and_layer(executable: Path) -> None:
    case = models.random_case(9)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = dict(case.tensors)
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] += 1.0
    changed = models.Case(case.name, case.config, tensors, case.ids, case.model)
    outcomes = run.check(executable, changed)
    assert outcomes[0].differ
    assert outcomes[-1].mode == "trace"
    assert outcomes[-1].first.startswith("blocks.1.mlp.hook_pre_linear, row 0, number 0: ")


@pytest.mark.usefixtures("executable")
@pytest.mark.slow
@pytest.mark.night
def test_control_a_changed_constant_of_the_decoder_is_noticed() -> None:
    chosen = tuple(m for m in mutants.MUTANTS if m.name in ("exp, f", "window", "attend, order"))
    assert len(chosen) == 3
    found = {mutant.name: differ for mutant, differ, _ in mutants.outcomes(chosen)}
    assert not found["none"]
    assert found["exp, f"]
    assert found["window"]
    assert not found["attend, order"]


@pytest.mark.slow
@pytest.mark.night
def test_flat_arrays_would_be_smaller_and_faster(executable: Path, tmp_path: Path) -> None:
    shutil.copy(EXTRACTED / "flat.ml", tmp_path)
    for command_ in (
        ["ocamlopt", "-w", "-a", "-inline", "200", "flat.ml", "-o", "flat"],
        ["./flat"],
    ):
        done = subprocess.run(command_, cwd=tmp_path, capture_output=True, text=True, check=True)
    lists, shared, arrays = re.findall(
        r"(\S+) bytes a weight, (\S+) ns .* \(sum (\S+)\)", done.stdout
    )
    assert (lists[0], shared[0], arrays[0]) == ("40.0", "24.0", "8.0")
    assert float(arrays[1]) < float(lists[1])
    assert arrays[2] == lists[2], "the same products in the same order"


def test_every_mutant_changes_one_place_of_the_decoder() -> None:
    assert len(mutants.MUTANTS) >= 40
    names = [mutant.name for mutant in mutants.MUTANTS]
    assert len({*names}) == len(names)
    for mutant in mutants.MUTANTS:
        assert mutants.mutated(mutant)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw.replace(b"minikv dump 1", b"minikv dump 2"), 'starts with "minikv dump 2'),
        (lambda raw: raw[:-4], "is cut short"),
        (lambda raw: raw[:3], "write it anew"),
        (lambda raw: raw + b"\0", "holds more than a model"),
    ],
)
def test_a_dump_that_is_not_one_is_refused_in_one_line(
    executable: Path, tmp_path: Path, damage, message: str
) -> None:
    case = models.random_case(5)
    path = dumped(case, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(run.CannotRun) as caught:
        run.run(executable, case, ["forward"], path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_without_a_compiler_run_says_what_to_install(tmp_path: Path) -> None:
    done = command(PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "apt install coq" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("executable")
@pytest.mark.slow
def test_the_commands_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--quick", "--only", "T1,T9", "--extracted"]) == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if line[0:1] == "T")
    assert first.endswith("same bits")
    assert second.endswith("-")
    assert main(["fingerprint", "--model", str(run.FIXTURE), "--extracted", "--ids", "3", "1"]) == 0
    assert capsys.readouterr().out.endswith(" numbers compared, 0 differ in a bit\n")


@pytest.mark.usefixtures("executable")
def test_the_nightly_run_says_time_and_memory() -> None:
    printed, code = nightly.measured(["--forward"])
    assert code == 0
    assert re.search(
        r", 0 differ in a bit\n\d+ s of CPU, \d+ s of wall time, \d+\.\d\d GiB\n$", printed
    )
    _, code = nightly.measured(["--model", "no-such-model"])
    assert code == 2


@pytest.mark.usefixtures("executable")
def test_bad_input_is_refused_in_one_line() -> None:
    done = command("--model", "no-such-model")
    assert done.returncode == 2
    assert "no-such-model" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = command("--tokens", "3", "99999")
    assert done.returncode == 2
    assert "99999" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.weights
def test_smollm2_has_the_same_bits(executable: Path) -> None:
    case = models.folder_case("smollm2-135m-instruct", [504, 13487, 6942, 314, 511])
    forward, calm = run.check(executable, case, ["forward", "calm"])
    assert forward.compared == 5 * case.config.vocab_size
    assert not forward.differ, forward.first
    assert not calm.differ
    assert decoder_calm.calm(case), "so no check can fire, for any text: Finite.no_check_fires"

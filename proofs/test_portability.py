"""portability.py: one Exact value in every environment, several Float32 values, honest rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import portability
import pytest
from portability import Row, Task, faults, kernels, ways

import minikv

SCRIPT = Path(portability.__file__)


@pytest.fixture(scope="module")
def quick():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json"],
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_exact_has_one_value_and_float32_several(quick):
    ran = [row for row in quick["rows"] if row["status"] == "ran"]
    assert len({row["exact"] for row in ran}) == 1
    assert len({row["float32"] for row in ran}) >= 2
    assert quick["faults"] == []


def test_every_kind_of_environment_has_a_row_with_a_value_or_a_reason(quick):
    kinds = {"feeding", "BLAS kernel", "SIMD", "array library"}
    assert kinds <= {row["varied"] for row in quick["rows"]}
    for row in quick["rows"]:
        assert row["note"]
        assert (row["status"] == "ran") == bool(row["exact"]) == bool(row["float32"])


def test_no_kernel_is_counted_twice(quick):
    rows = [row for row in quick["rows"] if row["varied"] == "BLAS kernel"]
    ran = [(row["kernel"], row["threads"]) for row in rows if row["status"] == "ran"]
    assert len(set(ran)) == len(ran) > 1


def test_feeding_alone_changes_float32_but_not_exact():
    rows = Task("random-small", list(range(70))).rows("feeding", {way: way for way in ways(3)})
    assert faults(rows) == []


ELEMENTARY = """
import hashlib, numpy as np
from minikv.arithmetic import Exact
exact, x = Exact(), np.linspace(-40, 40, 200_001)
for function in ("exp", "sin", "cos"):
    for value in (getattr(exact, function)(x), getattr(np, function)(x)):
        print(hashlib.sha256(value.tobytes()).hexdigest())
"""
# Of exp, sin and cos, on any machine.
DIGITS = [
    "4c92c25ff7aac54c452eed914a585a9f0e97dbbd565b30c2a9fce4a01d1b738a",
    "e714554996c1051a6b0edfc1a644cbcd3e7ca2a60bcc79377dbafb89bdd87d31",
    "3a59aa4797fa1d173b5b9447ad336aae15987ebbe90affc36af51e1b053ced59",
]


def test_exp_sin_and_cos_have_the_same_bits_without_simd_and_numpys_have_not():
    """Through logits it would hardly show: a last bit of float64 seldom survives float32."""
    features = portability._dispatched(sys.executable)
    found = []
    for disabled in ("", " ".join(features)):
        environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled}
        done = subprocess.run(
            [sys.executable, "-c", ELEMENTARY],
            env=environment,
            text=True,
            capture_output=True,
            check=True,
        )
        found.append(done.stdout.split())
    assert found[0][::2] == found[1][::2] == DIGITS
    if not any(name in features for name in ("X86_V4", "AVX512_SKX")):
        pytest.skip("this CPU lacks AVX-512, with which NumPy has an exp of its own")
    assert found[0][1::2] != found[1][1::2]


# What must be found wrong is found wrong.

GOOD = [Row("a", "1", float32="f", exact="e"), Row("a", "2", float32="g", exact="e")]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*GOOD, Row("a", "3", float32="f", exact="x")], "exact has 2 values"),
        (GOOD[:1], "float32 has no second value"),
        ([*GOOD, Row("a", "3", "failed", note="killed by signal 4")], "killed by signal 4"),
        ([], "exact has 0 values"),
    ],
)
def test_faults_are_named(rows, said):
    assert any(said in fault for fault in faults(rows))


def test_rows_that_did_not_run_are_no_fault():
    others = [Row("a", "3", "unavailable", note="not installed"), Row("a", "4", "same")]
    assert faults(GOOD + others) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "killed by signal 4"),
        ("raise ImportError('no NumPy')", "no NumPy"),
        ("", "exit code 0"),
    ],
)
def test_a_process_that_dies_is_a_failed_row(code, said, tmp_path):
    python = tmp_path / "python"  # an interpreter that dies in its own way
    python.write_text(f"#!{sys.executable}\n{code}\n")
    python.chmod(0o755)
    row = Task("random-small", [1, 2]).row("NumPy", "broken", python=[str(python)])
    assert row.status == "failed"
    assert said in row.note


def test_an_interpreter_that_does_not_exist_is_a_failed_row(tmp_path):
    row = Task("random-small", [1, 2]).row("NumPy", "none", python=[str(tmp_path / "none")])
    assert (row.status, row.note) == ("failed", f"{tmp_path / 'none'}: No such file or directory")


def test_a_library_that_is_not_installed_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setitem(portability.NAMESPACES, "no_such_library", "no_such_library")
    row = Task("random-small", [1, 2]).row("array library", "none", namespace="no_such_library")
    # In the process the name is unknown to NAMESPACES too, but the import fails before that.
    assert (row.status, row.note) == ("unavailable", "No module named 'no_such_library'")


def test_another_blas_is_a_row_with_the_reason(monkeypatch):
    where = portability.environment() | {"blas": "accelerate unknown"}
    monkeypatch.setattr(portability, "environment", lambda: where)
    [row] = kernels(Task("random-small", [1]), GOOD[0], quick=True)
    assert row.status == "unavailable"
    assert "accelerate" in row.note


@pytest.mark.parametrize("argv", [["--model", "no-such-model"], ["--quick", "--ids", "512"]])
def test_wrong_input_is_one_line(argv, capsys):
    assert portability.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("portability: error:")
    assert err.count("\n") == 1


@pytest.mark.weights
@pytest.mark.slow
def test_real_weights_under_two_kernels_and_every_feeding(smollm2):
    ids = minikv.load(smollm2).tokenizer.encode(portability.TEXT)[:24]
    task = Task(str(smollm2), ids)
    fed = {"": "one call", **{way: way for way in list(ways(1))[:8]}}
    rows = task.rows("feeding", fed)
    rows += list(kernels(task, rows[0], quick=True))
    rows += [
        task.row(
            "SIMD",
            "baseline alone",
            NPY_DISABLE_CPU_FEATURES=" ".join(portability._dispatched(sys.executable)),
        )
    ]
    assert faults(rows) == []
    if rows[0].kernel in portability.X86_KERNELS:
        assert len({row.kernel for row in rows if row.status == "ran"}) >= 2


BARE = """
import importlib.abc, json, sys

class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {others}:
            raise ImportError(name)

sys.meta_path.insert(0, Refusing())
sys.path.insert(0, {folder!r})
import portability
job = dict(model="random-small", ids=[1, 2], namespace="numpy", ways=[""], skip=[])
job["operations"] = False
print(json.dumps(sorted(portability.worker(job)["prints"][""])))
"""
OTHERS = ["safetensors", "tokenizers", "threadpoolctl", "hypothesis", "pytest", "numba", "torch"]


def test_a_row_needs_numpy_and_nothing_else():
    code = BARE.format(others=OTHERS, folder=str(SCRIPT.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ['["exact", "float32"]'], done.stderr


def test_another_interpreter_is_asked_for_its_numpy_and_its_array_libraries(monkeypatch):
    asked = []

    def row(self, varied, name, python=(sys.executable,), **_):
        asked.append((varied, python[0]))
        return Row(varied, name, float32="f", exact="e", note="a note")

    monkeypatch.setattr(Task, "row", row)
    monkeypatch.setattr(Task, "rows", lambda *_, **__: [GOOD[0]])
    monkeypatch.setattr(portability, "kernels", lambda *_: [])
    monkeypatch.setattr(portability, "simd_levels", lambda *_: [])
    rows = list(portability.measure(Task("random-small", [1]), ["other"], False))
    assert ("NumPy", "other") in asked
    for python in ("other", sys.executable):
        assert sum(one == ("array library", python) for one in asked) >= len(portability.NAMESPACES)
    assert all(row.status == "ran" for row in rows)


@pytest.mark.parametrize(("exact", "code"), [("e", 0), ("x", 1)])
def test_the_exit_code_is_1_where_something_differs_and_nothing_is_written(
    exact, code, monkeypatch, capsys
):
    rows = [*GOOD, Row("a", "3", float32="f", exact=exact)]
    written = []
    monkeypatch.setattr(portability, "measure", lambda *_: rows)
    monkeypatch.setattr(portability.machines, "write", written.append)
    assert portability.main(["--golden", "--write", "--json"]) == code
    assert bool(written) == (code == 0)
    assert json.loads(capsys.readouterr().out)["faults"] == faults(rows)

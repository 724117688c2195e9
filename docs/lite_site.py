"""Chapters that need no weights, as JupyterLite: they run in the reader's browser.

Python and its packages come from Pyodide, whose version the kernel of JupyterLite pins, and from
PyPI; minikv comes from the site, in the zip file of `proof_page`.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

import proof_page

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
COPIED = (  # what chapters read, as files of the repository
    "notebooks/exercises/*.py",
    "notebooks/solutions/*.py",
    "notebooks/small.py",
    "proofs/counterexamples/*.py",
    "proofs/strategies.py",
    "proofs/mutants.toml",
    "proofs/rocq/*.v",
)
NEEDS = ("jupyterlite_core", "jupyterlite_pyodide_kernel", "jupyter_server", "jupytext")
WITHOUT = (
    "docs/build.py: the chapters that run in a browser are left out, for want of {missing}: "
    'pip install -e ".[lite]"'
)
SECTION = """
## Chapters in your browser

Chapters 7 and 8, which need no weights, and short versions of 3 and 4, in which a random model of
30 blocks takes SmolLM2's place. They open in JupyterLite, and run on Python in your browser:
nothing is installed, and what you write stays there.

```{raw} html
:file: lite-links.html
```

Python, NumPy and Matplotlib come from Pyodide, Hypothesis from PyPI, so that a network is needed.
In tests the same notebooks are laid out and run by CPython, with NumPy and without safetensors,
tokenizers and Numba; the edition is built there, and was not opened with Pyodide's present version.
"""


def missing() -> list[str]:
    """The packages that the edition wants and that are not there."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def links(folder: Path) -> str:
    """A link to each notebook of the edition, by its title, in HTML."""
    items = []
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title = "".join(cells[1]["source"]).partition("\n")[0].lstrip("# ")
        which = ", short" if path.stem.endswith("_short") else ""
        address = f"lite/lab/index.html?path=notebooks/{path.name}"
        items.append(f'<li><a href="{address}">{escape(title)}</a>{which}</li>')
    return "<ul>\n" + "\n".join(items) + "\n</ul>\n"


def lay_out(folder: Path) -> None:
    """The files of the edition: notebooks, what they read, and minikv in a zip file."""
    command = [sys.executable, str(NOTEBOOKS / "short.py"), str(folder / "notebooks")]
    subprocess.run(command, check=True)
    for pattern in COPIED:
        for path in sorted(ROOT.glob(pattern)):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (folder / "minikv.zip").write_bytes(proof_page.packed())


def build(contents: Path, out: Path) -> None:
    """Write the edition to a folder of the built site."""
    command = [sys.executable, "-m", "jupyterlite_core", "build", "--no-sourcemaps"]
    command += ["--apps", "lab", "--contents", str(contents), "--output-dir", str(out)]
    with tempfile.TemporaryDirectory() as notes:  # it keeps some where it runs
        done = subprocess.run(command, cwd=notes, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"jupyter lite build: {(done.stdout + done.stderr).strip()}")

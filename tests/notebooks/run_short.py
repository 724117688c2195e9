"""Run the notebooks of the edition for JupyterLite where nothing is but what a browser has.

    python tests/notebooks/run_short.py          # all of them: minutes
    python tests/notebooks/run_short.py 03 04    # some of them

They are laid out as on the site, and this Python runs their code, which finds minikv in the zip
file of the edition, no safetensors, tokenizers or Numba, no threads and no other programs.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "docs"))

import lite_site

RUNNER = """
import json, sys
for name in ("safetensors", "tokenizers", "numba", "gguf", "jinja2", "threadpoolctl"):
    sys.modules[name] = None
import os, subprocess, threading
os.environ["PATH"] = ""
def refused(*arguments, **more):
    raise RuntimeError("a browser has none")
threading.Thread.start = subprocess.Popen.__init__ = refused
import matplotlib
matplotlib.use("agg")
cells = [cell for cell in json.load(open(sys.argv[1]))["cells"] if cell["cell_type"] == "code"]
first = "".join(cells[0]["source"]).replace("%pip", "# %pip")
first = first.replace('"/tmp"', repr(sys.argv[2]))  # which others here may use
scope = {"__name__": "__main__"}
for source in [first, *("".join(cell["source"]) for cell in cells[1:])]:
    exec(compile(source, "cell", "exec"), scope)
import minikv
assert minikv.__file__.startswith(sys.argv[2]), minikv.__file__
"""


def run(edition: Path, name: str) -> str:
    """Run one notebook; what went wrong, or nothing."""
    with tempfile.TemporaryDirectory() as own:
        command = [sys.executable, "-I", "-c", RUNNER, name, own]
        ran = subprocess.run(command, cwd=edition / "notebooks", capture_output=True, text=True)
    return ran.stderr if ran.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("numbers", nargs="*", help="chapters, such as 03; all by default")
    numbers = tuple(parser.parse_args().numbers)
    failed = 0
    spent = 0.0
    with tempfile.TemporaryDirectory() as made:
        edition = Path(made)
        lite_site.lay_out(edition)
        for path in sorted((edition / "notebooks").glob("*.ipynb")):
            if numbers and not path.name.startswith(numbers):
                continue
            wrong = run(edition, path.name)
            failed += bool(wrong)
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = usage.ru_utime + usage.ru_stime - spent
            spent += seconds
            print(f"{path.stem}: {wrong or 'ran'}, {seconds:.0f} s of processor time", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
